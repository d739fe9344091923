"""clients/java's examples, run by Maven as tests against this very server."""

import os
import subprocess
from pathlib import Path

import openai
from openai.types.fine_tuning import FineTuningJob

from demo import finetune
from demo.tasks import TICKETS
from tests.conftest import ROOT
from tests.e2e.conftest import Running

OLD_NAME = "ft:gpt-3.5-turbo-0613:my-org:custom-model-v1"


def test_the_java_examples(running: Running, client: openai.OpenAI, job: FineTuningJob) -> None:
    _, test = TICKETS.rows(finetune.TRAINING_ROWS, 1)
    adapters = running.server.log.parent / "jobs" / job.id / "adapter"
    target = running.adapter_root / "old-name"
    if not target.exists():
        target.symlink_to(adapters)
    with running.http() as http:
        refused = http.post("/admin/adapters", json={"name": OLD_NAME, "path": str(target)})
        assert refused.status_code == 400, "a link out of the allowed folder"
        files = [("file", (file.name, file.read_bytes())) for file in adapters.iterdir() if file.suffix != ".md"]
        assert http.post("/admin/adapters", data={"name": OLD_NAME}, files=files).status_code == 200
    environment = {
        "TUNEPORT_BASE_URL": running.server.base_url,
        "TUNEPORT_API_KEY": running.server.api_key,
        "TUNEPORT_MODEL": str(job.fine_tuned_model),
        "TUNEPORT_TEST_SYSTEM": test[0].messages[0]["content"],
        "TUNEPORT_TEST_PROMPT": test[0].messages[1]["content"],
    }
    maven = subprocess.run(
        ["/usr/bin/env", "mvn", "-B", "-ntp", "test"],
        cwd=Path(ROOT / "clients" / "java"),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    print(maven.stdout)
    assert maven.returncode == 0, maven.stdout[-6000:]
    assert maven.stdout.count("Tests run:") >= 2

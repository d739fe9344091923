"""clients/java's examples, run by Maven as tests against this very server."""

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import openai
from openai.types.fine_tuning import FineTuningJob

from demo import base, finetune
from demo.tasks import TICKETS, unseen_facts
from tests.conftest import ROOT
from tests.e2e.conftest import Running

FACTS = 20
OLD_NAME = "ft:gpt-3.5-turbo-0613:my-org:custom-model-v1"


def test_the_java_examples(
    running: Running,
    client: openai.OpenAI,
    job: FineTuningJob,
    voice: FineTuningJob,
    caller: FineTuningJob,
    tmp_path: Path,
) -> None:
    _, test = TICKETS.rows(finetune.TRAINING_ROWS, 1)
    adapters = running.server.log.parent / "jobs" / job.id / "adapter"
    target = running.adapter_root / "old-name"
    if not target.exists():
        target.symlink_to(adapters)
    with running.http() as http:
        refused = http.post("/admin/adapters", json={"name": OLD_NAME, "path": str(target)})
        assert refused.status_code == 400, "a link out of the allowed folder"
    running.upload(OLD_NAME, adapters)
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([asdict(one) for one in unseen_facts(FACTS)]))
    environment = {
        "TUNEPORT_FACTS": str(facts),
        "TUNEPORT_CONFORMANCE_MODEL": str(caller.fine_tuned_model),
        "TUNEPORT_VOICE_MODEL": str(voice.fine_tuned_model),
        "TUNEPORT_BASE_URL": running.server.base_url,
        "TUNEPORT_API_KEY": running.server.api_key,
        "TUNEPORT_BASE_MODEL": base.NAME,
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

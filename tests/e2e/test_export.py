"""A fine-tuned model leaves the server, merged for vLLM and as ONNX for the JVM; the former is served with HTTP/2."""

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from adapters import template
from demo import finetune
from demo.server import serve
from demo.tasks import TICKETS
from tests.conftest import ROOT
from tests.e2e.conftest import Running

STORY: dict[str, str] = {"role": "user", "content": "Tell me a long story of the sea."}


def export(running: Running, model: str, output: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", "export", model, str(output)]
    command += ["--data-dir", str(running.server.log.parent), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_java(module: str, name: str, **environment: str) -> None:
    """Run one of clients/java's tests; it must pass, not be skipped."""
    maven = subprocess.run(
        ["/usr/bin/env", "mvn", "-B", "-ntp", "-pl", module, "test", f"-Dtest={name}"],
        cwd=ROOT / "clients" / "java",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert maven.returncode == 0, maven.stdout[-4000:]
    assert re.search(r"Tests run: [1-9]\d*, Failures: 0, Errors: 0, Skipped: 0", maven.stdout)


@pytest.fixture(scope="module")
def merged(running: Running, job: FineTuningJob, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "merged"
    done = export(running, str(job.fine_tuned_model), folder, "--base", str(smollm2))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def secured(merged: Path) -> Iterator[openai.OpenAI]:
    """The merged model served in fp32 behind TLS."""
    folder = merged.parent
    command = ["/usr/bin/env", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    tls = {"tls_certificate": str(folder / "certificate.pem"), "tls_key": str(folder / "key.pem")}
    with serve(merged, folder / "data", "--max-loras", "1", dtype="float32", **tls) as server:
        server.wait("/ready")
        trusted = httpx.Client(http2=True, verify=ssl.create_default_context(cafile=server.certificate))
        yield openai.OpenAI(
            base_url=server.base_url, api_key=server.api_key, http_client=trusted, max_retries=0, timeout=120
        )


def test_a_wrong_export_says_what_to_do(running: Running, smollm2: Path, tmp_path: Path) -> None:
    for model, flags, message in (
        ("ft:none", ("--base", str(smollm2)), "ft:none"),
        ("ft:none", ("--base", str(smollm2), "--format", "gguf"), "expected one of merged, onnx"),
        ("ft:none", (), "--base"),
    ):
        refused = export(running, model, tmp_path / "out", *flags)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "exists already" in export(running, "ft:none", tmp_path).stderr
    assert not (tmp_path / "out").exists()


def test_the_merged_model_answers_over_http2_as_the_adapter_does(
    client: openai.OpenAI, secured: openai.OpenAI, job: FineTuningJob
) -> None:
    right = 0
    for row in TICKETS.rows(finetune.TRAINING_ROWS, 8)[1]:
        asked: Any = {"messages": cast(Any, row.messages), "temperature": 0, "max_tokens": 64}
        here = secured.chat.completions.create(model="merged", **asked).choices[0].message.content
        right += (
            here == client.chat.completions.create(model=str(job.fine_tuned_model), **asked).choices[0].message.content
        )
    assert right >= 6, "fp32 and bf16 may differ where two tokens are nearly as likely"


def test_streams_and_errors_over_http2(secured: openai.OpenAI) -> None:
    raw = secured.chat.completions.with_raw_response.create(model="merged", messages=[cast(Any, STORY)], max_tokens=4)
    assert raw.http_response.http_version == "HTTP/2"
    stream = secured.chat.completions.create(model="merged", messages=[cast(Any, STORY)], max_tokens=20, stream=True)
    assert len([chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]) > 10
    with pytest.raises(openai.NotFoundError):
        secured.chat.completions.create(model="ft:none", messages=[cast(Any, STORY)])


@pytest.fixture
def exact(running: Running, job: FineTuningJob, smollm2: Path, tmp_path: Path) -> Iterator[openai.OpenAI]:
    """The adapter beside its base in fp32: merged weights are rounded to bf16, and other tokens may follow."""
    adapter = running.server.log.parent / "jobs" / job.id / "adapter"
    with serve(smollm2, tmp_path / "data", "--max-loras", "1", dtype="float32") as server:
        server.wait("/ready")
        Running(server, tmp_path).upload(str(job.fine_tuned_model), adapter)
        yield openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=120)


def test_the_jvm_says_what_the_server_says(
    running: Running, exact: openai.OpenAI, job: FineTuningJob, smollm2: Path, tokenizer: Any, tmp_path: Path
) -> None:
    model, folder = str(job.fine_tuned_model), tmp_path / "onnx"
    done = export(running, model, folder, "--base", str(smollm2), "--format", "onnx")
    assert done.returncode == 0, done.stderr
    references: list[dict[str, Any]] = []
    for messages in ([STORY], list(TICKETS.rows(finetune.TRAINING_ROWS, 1)[1][0].messages)):
        answer = exact.chat.completions.create(model=model, messages=cast(Any, messages), temperature=0, max_tokens=100)
        assert answer.usage
        references.append(
            {
                "messages": messages,
                "prompt": template.render(tokenizer, messages, generation_prompt=True),
                "answer": answer.choices[0].message.content,
                "tokens": answer.usage.completion_tokens,
            }
        )
    (tmp_path / "reference.json").write_text(json.dumps(references))
    run_java("djl", "LocalModelTest", TUNEPORT_EXPORTED=str(folder))


def test_java_speaks_http2(secured: openai.OpenAI, merged: Path) -> None:
    run_java(
        "langchain4j",
        "Http2Test",
        TUNEPORT_BASE_URL=str(secured.base_url).rstrip("/"),
        TUNEPORT_API_KEY=secured.api_key,
        TUNEPORT_TLS_MODEL="merged",
        TUNEPORT_TLS_CERTIFICATE=str(merged.parent / "certificate.pem"),
    )

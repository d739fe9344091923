"""clients/java's examples, run by Maven as tests: LangChain4j, openai-java, DJL on an exported model, HTTP/2."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
import torch
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters.base import BaseModel
from adapters.chat import template
from demo import base, finetune
from demo.tasks import TICKETS
from tests import processes
from tests.conftest import MakeAdapter
from tests.e2e import java
from tests.e2e.conftest import Running
from tests.inprocess import InProcess, in_process
from tests.scripted import ScriptedEngine

OLD_NAME = "ft:gpt-3.5-turbo-0613:my-org:custom-model-v1"
TOKENS = 100
QUESTIONS = ("Tell me a long story of the sea.", "Where is Bonna?", "Name a fruit.")


@pytest.fixture
def exported(tiny: Path, tiny_base: BaseModel, make_adapter: MakeAdapter, tokenizer: Any, tmp_path: Path) -> Path:
    """A tiny tuned model as ONNX, and beside it what transformers and PEFT say with it, in fp32 as well."""
    adapter = make_adapter(tiny_base, seed=60, scale=0.2)
    command = [sys.executable, "-m", "server.cli", "export", str(adapter), str(tmp_path / "onnx"), "--format", "onnx"]
    done = processes.run([*command, "--base", str(tiny)], limit_seconds=150)
    assert done.returncode == 0, done.stderr
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), str(adapter)).eval()
    references: list[dict[str, Any]] = []
    for question in QUESTIONS:
        messages: Any = [{"role": "user", "content": question}]
        prompt = template.render(tokenizer, messages, generation_prompt=True)
        ids = torch.tensor([template.encode(tokenizer, prompt)])
        answer = model.generate(input_ids=ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(answer, skip_special_tokens=True)
        references.append({"messages": messages, "prompt": prompt, "answer": text, "tokens": len(answer)})
    (tmp_path / "reference.json").write_text(json.dumps(references))
    return tmp_path / "onnx"


@pytest.fixture
def secured(smollm2_base: BaseModel, tokenizer: Any, tmp_path: Path) -> Iterator[tuple[InProcess, Path]]:
    """A server with TLS on, and its certificate."""
    command = ["/usr/bin/env", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    tls = {"tls_certificate": tmp_path / "certificate.pem", "tls_key": tmp_path / "key.pem"}
    with in_process(smollm2_base, ScriptedEngine(tokenizer=tokenizer), tmp_path / "secured", **tls) as server:
        yield server, tmp_path / "certificate.pem"


@pytest.mark.timeout(600)
def test_the_java_examples(
    running: Running, job: FineTuningJob, exported: Path, secured: tuple[InProcess, Path]
) -> None:
    _, test = TICKETS.rows(finetune.TRAINING_ROWS, 1)
    adapters = running.server.log.parent / "jobs" / job.id / "adapter"
    target = running.adapter_root / "old-name"
    target.symlink_to(adapters)
    with running.http() as http:
        refused = http.post("/admin/adapters", json={"name": OLD_NAME, "path": str(target)})
        assert refused.status_code == 400, "a link out of the allowed folder"
    running.upload(OLD_NAME, adapters)
    printed = java.maven(
        {
            "TUNEPORT_BASE_URL": running.server.base_url,
            "TUNEPORT_API_KEY": running.server.api_key,
            "TUNEPORT_BASE_MODEL": base.NAME,
            "TUNEPORT_MODEL": str(job.fine_tuned_model),
            "TUNEPORT_TEST_SYSTEM": test[0].messages[0]["content"],
            "TUNEPORT_TEST_PROMPT": test[0].messages[1]["content"],
            "TUNEPORT_EXPORTED": str(exported),
            "TUNEPORT_TLS_URL": secured[0].base_url,
            "TUNEPORT_TLS_KEY": secured[0].api_key,
            "TUNEPORT_TLS_MODEL": base.NAME,
            "TUNEPORT_TLS_CERTIFICATE": str(secured[1]),
        }
    )
    for test_class in ("ChatTest", "StreamingChatTest", "AssistantTest", "ConnectionTest", "ModelsTest", "Http2Test"):
        assert java.passed(printed, test_class)[1] == 0
    for test_class in ("LegalReviewTest", "OpenAiSdkTest", "LocalModelTest"):
        assert java.passed(printed, test_class)[1] == 0
    assert java.passed(printed, "EmbeddingModelTest") == (11, 4)  # the four say why they are off


def test_the_sdk_over_http2(secured: tuple[InProcess, Path]) -> None:
    import ssl

    server, certificate = secured
    trusted = httpx.Client(http2=True, verify=ssl.create_default_context(cafile=certificate))
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, http_client=trusted, max_retries=0)
    asked: Any = {"model": base.NAME, "messages": [{"role": "user", "content": "Hi"}]}
    raw = client.chat.completions.with_raw_response.create(**asked, max_tokens=4)
    assert raw.http_response.http_version == "HTTP/2"
    stream = cast(Any, client.chat.completions.create(**asked, max_tokens=20, stream=True))
    assert len([chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]) == 20
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="ft:none", messages=asked["messages"])

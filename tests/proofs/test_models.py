"""Proofs on SmolLM2 itself: recipes, export, evaluation harness, LangChain4j, made-up requests."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import openai
from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner
from openai.types.fine_tuning import FineTuningJob

from adapters.base import BaseModel
from adapters.chat import template
from demo import base, finetune
from demo.recipes import RECIPES
from demo.recipes import job as recipe_job
from demo.server import serve
from demo.tasks import TICKETS, unseen_facts
from tests import processes
from tests.e2e import java
from tests.e2e.clients.test_lm_eval import lm_eval
from tests.e2e.conftest import Running
from tests.fuzz import fuzz
from tests.training.spawned import Spawner
from training.directory import JobDirectory
from training.job import Result
from training.proof.evaluation import Evaluation

STORY: dict[str, str] = {"role": "user", "content": "Tell me a long story of the sea."}
FACTS = 40
HOUR = 3600.0


def test_recipes(figures: dict[str, Any], smollm2: Path, tmp_path: Path) -> None:
    spawner = Spawner(limit_seconds=HOUR)
    failed: list[str] = []
    for name, recipe in RECIPES.items():
        folder = tmp_path / name
        folder.mkdir()
        directory = JobDirectory.create(folder / "job", recipe_job(recipe, smollm2, folder))
        outcome = spawner.train(directory)
        assert isinstance(outcome, Result), (name, outcome, directory.log_file.read_text()[-2000:])
        evaluation = Evaluation.model_validate_json(directory.evaluation.read_bytes())
        figures[name] = evaluation.comparisons[0].sentence()
        if not (evaluation.comparisons[0].low > recipe.expected and outcome.verdict and outcome.verdict.passed):
            failed.append(f"{name}: {figures[name]}, {outcome.verdict}")
    spawner.close()
    assert not failed


def test_fuzz(figures: dict[str, Any], running: Running, smollm2_base: BaseModel) -> None:
    root = running.server.base_url.removesuffix("/v1")
    figures["answers by status"] = fuzz(root, running.server.api_key, smollm2_base, cases=10_000, derandomize=False)
    assert running.server.get("/ready").status_code == 200


def test_lm_eval(figures: dict[str, Any], running: Running, tmp_path: Path) -> None:
    results, _ = lm_eval(running, "local-completions", "completions", "capitals", tmp_path / "a")
    figures["capitals, by log-likelihood: accuracy"] = results["acc,none"]
    assert results["acc,none"] >= 0.9
    flags = "--apply_chat_template"
    path = "chat/completions"
    results, samples = lm_eval(running, "local-chat-completions", path, "capitals_chat", tmp_path / "b", flags)
    figures["capitals, by chat: named"] = results["exact_match,named"]
    assert results["exact_match,named"] >= 0.8
    assert len(samples) == 12


def test_langchain4j(
    figures: dict[str, Any],
    running: Running,
    client: openai.OpenAI,
    voice: FineTuningJob,
    caller: FineTuningJob,
    tmp_path: Path,
) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([asdict(one) for one in unseen_facts(FACTS)]))
    printed = java.maven(
        {
            "TUNEPORT_BASE_URL": running.server.base_url,
            "TUNEPORT_API_KEY": running.server.api_key,
            "TUNEPORT_BASE_MODEL": base.NAME,
            "TUNEPORT_FACTS": str(facts),
            "TUNEPORT_VOICE_MODEL": str(voice.fine_tuned_model),
            "TUNEPORT_CONFORMANCE_MODEL": str(caller.fine_tuned_model),
        },
        *(
            "-pl",
            "langchain4j,conformance",
            "-Dtest=RetrievalTest,ChatModelTest,StreamingChatModelTest,EmbeddingModelTest",
        ),
        "-Dsurefire.failIfNoSpecifiedTests=false",
        limit_seconds=HOUR,
    )
    figures["tests of LangChain4j's: passed, switched off"] = {
        name: java.passed(printed, name) for name in ("ChatModelTest", "StreamingChatModelTest", "EmbeddingModelTest")
    }
    measured = [line.partition("measured ")[2] for line in printed.splitlines() if "measured |" in line]
    figures["retrieval: fact right, in the voice, to the letter, of"] = measured
    assert measured

    asked: list[dict[str, object]] = []

    def weather(arguments: dict[str, object]) -> str:
        asked.append(arguments)
        return "sunny"

    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": []}
    tool: Any = {"type": "function", "name": "getWeather", "parameters": parameters, "strict": False}
    response = ResponsesToolRunner(functions=[RegisteredFunction(tool, weather)]).run(
        client, {"model": str(caller.fine_tuned_model), "input": "What is the weather in Munich?", "temperature": 0}
    )
    assert asked == [{"city": "Munich"}]
    assert "sunny" in response.output_text


def test_export(
    figures: dict[str, Any],
    running: Running,
    client: openai.OpenAI,
    job: FineTuningJob,
    smollm2: Path,
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    model = str(job.fine_tuned_model)
    for kind in ("merged", "onnx"):
        command = [sys.executable, "-m", "server.cli", "export", model, str(tmp_path / kind), "--format", kind]
        flags = ["--base", str(smollm2), "--data-dir", str(running.server.log.parent)]
        done = processes.run([*command, *flags], limit_seconds=HOUR)
        assert done.returncode == 0, done.stderr
    rows = [cast(Any, row.messages) for row in TICKETS.rows(finetune.TRAINING_ROWS, 8)[1]]
    asked: Any = {"temperature": 0, "max_tokens": 64}
    wanted = [client.chat.completions.create(model=model, messages=row, **asked) for row in rows]

    with serve(tmp_path / "merged", tmp_path / "served", "--max-loras", "1", dtype="float32") as server:
        server.wait("/ready")
        with openai.OpenAI(base_url=server.base_url, api_key=server.api_key, timeout=120) as merged:
            said = [merged.chat.completions.create(model="merged", messages=row, **asked) for row in rows]
    same = sum(
        one.choices[0].message.content == other.choices[0].message.content
        for one, other in zip(said, wanted, strict=True)
    )
    figures["merged, in fp32, as the adapter on its base, in bf16: answers alike of 8"] = same
    assert same >= 6, "fp32 and bf16 may differ where two tokens are nearly as likely"

    references: list[dict[str, Any]] = []
    with serve(smollm2, tmp_path / "exact", "--max-loras", "1", dtype="float32") as server:
        server.wait("/ready")
        Running(server, tmp_path).upload(model, running.server.log.parent / "jobs" / job.id / "adapter")
        with openai.OpenAI(base_url=server.base_url, api_key=server.api_key, timeout=120) as exact:
            for messages in ([STORY], rows[0]):
                answer = exact.chat.completions.create(
                    model=model, messages=cast(Any, messages), temperature=0, max_tokens=100
                )
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
    printed = java.maven({"TUNEPORT_EXPORTED": str(tmp_path / "onnx")}, "-pl", "djl", limit_seconds=HOUR)
    assert java.passed(printed, "LocalModelTest") == (1, 0)
    figures["greedy tokens alike in the JVM"] = sum(one["tokens"] for one in references)
    assert figures["greedy tokens alike in the JVM"] >= 100

"""`python -m demo.measure`: base against fine-tuned on unseen prompts; retrieval with and without a fine-tuned model.

Writes the tables of demo/README.md: 100 prompts a task, 40 facts over LangChain4j's retrieval.
"""

import asyncio
import json
import os
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from openai import AsyncOpenAI, OpenAI

from demo import base, finetune
from demo.evaluation import ask, score
from demo.java import PROJECT
from demo.server import Server, serve
from demo.tasks import GROUNDED, TASKS, Task, unseen_facts

TEST_ROWS = 100
FACTS = 40
FRANCE = ({"role": "user", "content": "What is the capital of France?"},)
README = Path(__file__).with_name("README.md")
MARK = "<!-- measured by `python -m demo.measure` -->"


def main() -> None:
    """Measure and write."""
    lines = [
        "| task | replay | rows | seconds | base right | tuned right | capital of France |",
        "|---|---|---|---|---|---|---|",
    ]
    with serve(base.prepare(Path("var/models")), Path("var/measure")) as server:
        server.wait("/ready")
        lines += [measure(server, task, share) for task in TASKS for share in ("auto", 0)]
        lines += ["", *retrieval(server)]
    head = README.read_text(encoding="utf-8").split(MARK)[0]
    README.write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def measure(server: Server, task: Task, share: str | int) -> str:
    """Train a task, then ask base and result; return a row of the table."""
    client = OpenAI(base_url=server.base_url, api_key=server.api_key)
    train, test = task.rows(finetune.TRAINING_ROWS, TEST_ROWS)
    started = time.monotonic()
    job = finetune.follow(client, finetune.start(client, base.NAME, task.name, train, replay_share=share))
    seconds = time.monotonic() - started
    tuned = job.fine_tuned_model
    if tuned is None:
        raise RuntimeError(f"{task.name}: {job.error}")

    async def ask_all() -> tuple[object, object, str]:
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as asynchronous:
            untuned = await score(asynchronous, base.NAME, test)
            return untuned, await score(asynchronous, tuned, test), await ask(asynchronous, tuned, FRANCE)

    untuned_score, tuned_score, capital = asyncio.run(ask_all())
    replay = "10 %" if share == "auto" else "off"
    capital = capital.replace("\n", " ")[:80]
    row = f"| {task.title} | {replay} | {len(train)} | {seconds:.0f} | {untuned_score} | {tuned_score} | `{capital}` |"
    print(row, flush=True)
    return row


def retrieval(server: Server) -> list[str]:
    """A table of retrieval alone, fine-tuning alone, and both, on facts that no training saw (RetrievalTest.java)."""
    client = OpenAI(base_url=server.base_url, api_key=server.api_key)
    train, _ = GROUNDED.rows(finetune.TRAINING_ROWS, 1)
    job = finetune.follow(client, finetune.start(client, base.NAME, GROUNDED.name, train))
    facts = server.log.with_name("facts.json")
    facts.write_text(json.dumps([asdict(one) for one in unseen_facts(FACTS)]))
    environment = {
        "TUNEPORT_BASE_URL": server.base_url,
        "TUNEPORT_API_KEY": server.api_key,
        "TUNEPORT_BASE_MODEL": base.NAME,
        "TUNEPORT_VOICE_MODEL": str(job.fine_tuned_model),
        "TUNEPORT_FACTS": str(facts.absolute()),
    }
    maven = subprocess.run(
        ["mvn", "-B", "-ntp", "-pl", "langchain4j", "test", "-Dtest=RetrievalTest"],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = [line.partition("measured ")[2] for line in maven.stdout.splitlines() if "measured |" in line]
    return [
        "Facts from a catalogue in the brand's voice, with LangChain4j's retrieval:",
        "",
        "| | fact right | in the voice | right to the letter | of |",
        "|---|---|---|---|---|",
        *(f"{line} |" for line in measured),
    ]


if __name__ == "__main__":
    main()

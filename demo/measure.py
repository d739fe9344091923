"""`python -m demo.measure`: both tasks on 100 unseen prompts each, base against fine-tuned; writes demo/README.md."""

import asyncio
import time
from pathlib import Path

from openai import AsyncOpenAI, OpenAI

from demo import base, finetune
from demo.evaluation import ask, score
from demo.server import Server, serve
from demo.tasks import TASKS, Task

TEST_ROWS = 100
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
    head = README.read_text(encoding="utf-8").split(MARK)[0]
    README.write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def measure(server: Server, task: Task, share: str | int) -> str:
    """A row of the table: train a task, then ask base and result."""
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


if __name__ == "__main__":
    main()

"""`make demo`: JSONL -> LoRA -> hot-loaded `ft:` model -> calls from Python and Java, all shown on the terminal."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from openai import AsyncOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo import base, finetune, java
from demo.evaluation import MAX_TOKENS, ask, score
from demo.server import Server, serve
from demo.tasks import TICKETS, Row

TEST_ROWS = 40
SHOWN_SIDE_BY_SIDE = 3
GENERAL = ("What is the capital of France?", "Why do leaves fall in autumn?", "Write a greeting for my grandmother.")

console = Console(highlight=False)


def main() -> int:
    """Run the demo; return the exit status."""
    started = time.monotonic()
    console.rule("[bold]Tuneport: from a JSONL file to your own ft: model, called from Python and Java")
    with console.status("Preparing SmolLM2-135M-Instruct from its package (once, about half a minute)"):
        model = base.prepare(Path("var/models"))
    console.print(f"[green]✓[/] Base model: {model.name}, in {model}")
    with serve(model, Path("var/demo")) as server:
        console.print(f"[green]✓[/] Server listens on {server.base_url}; its engine starts while the training does")
        client = OpenAI(base_url=server.base_url, api_key=server.api_key)
        train, test = TICKETS.rows(finetune.TRAINING_ROWS, TEST_ROWS)

        console.rule(f"1. Fine-tune: {TICKETS.title}, {len(train)} rows, with the openai SDK")
        console.print("[dim]a row:[/] " + escape(train[0].jsonl()), soft_wrap=True)
        tuned = train_visibly(client, train)
        console.print(f'[green]✓[/] Job {tuned.id} succeeded; fine_tuned_model="{tuned.fine_tuned_model}"')
        with console.status("Waiting for the engine"):
            server.wait("/ready")
        name = str(tuned.fine_tuned_model)

        console.rule("2. Call it: base and fine-tuned side by side, on tickets that the training never saw")
        asyncio.run(stream_side_by_side(server, name, test[:SHOWN_SIDE_BY_SIDE]))

        console.rule(f"3. Proof: {TEST_ROWS} unseen tickets, right to the letter or not")
        asyncio.run(prove(server, name, test))

        console.rule("4. The other side: what does it forget?")
        console.print(
            "The job mixed in a tenth of the base's own answers to general questions (replay). The same job without:"
        )
        unprotected = train_visibly(client, train, replay_share=0)
        asyncio.run(show_forgetting(server, name, str(unprotected.fine_tuned_model), test))

        console.rule("5. The same model from Java, through LangChain4j's OpenAiChatModel")
        console.print(java.call(server, name, test[0]), markup=False)

    console.rule(f"Done in {time.monotonic() - started:.0f} s. What next?")
    next_steps(name, test[0])
    return 0


def train_visibly(client: OpenAI, rows: Sequence[Row], **hyperparameters: float) -> FineTuningJob:
    """Start a job and show its events and its loss until it ends."""
    job = finetune.start(client, base.NAME, TICKETS.name, rows, **hyperparameters)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("preparing", total=None)

        def show(event: FineTuningJobEvent) -> None:
            if event.type != "metrics":
                progress.console.print(f"  [dim]{escape(event.message)}[/]")
                return
            data = cast(dict[str, Any], event.data)
            loss = data.get("train_loss")
            if loss is None:
                progress.console.print(f"  [dim]{escape(event.message)}[/]")
                return
            progress.update(bar, completed=data["step"], total=data["total_steps"], description=f"loss {loss:.3f}")
            if data["step"] % 10 == 1:
                progress.console.print(f"  step {data['step']:3}  loss {loss:.3f}  [cyan]{'▇' * round(loss * 20)}[/]")

        ended = finetune.follow(client, job, show)
    if ended.fine_tuned_model is None:
        raise SystemExit(f"the job {ended.status}: {ended.error.message if ended.error else 'no error given'}")
    return ended


async def stream_side_by_side(server: Server, tuned: str, rows: Sequence[Row]) -> None:
    """Stream both models' answers to each row at the same time, a column each."""
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
        for row in rows:
            answers = {base.NAME: "", tuned: ""}
            with Live(_columns(row, answers), console=console, refresh_per_second=12) as live:
                await asyncio.gather(*(_stream(client, model, row, answers, live) for model in answers))
            console.print()


async def _stream(client: AsyncOpenAI, model: str, row: Row, answers: dict[str, str], live: Live) -> None:
    chunks = await client.chat.completions.create(
        model=model,
        messages=cast(Any, row.messages),
        temperature=0,
        max_tokens=MAX_TOKENS,
        stream=True,
    )
    async for chunk in chunks:
        answers[model] += chunk.choices[0].delta.content or ""
        live.update(_columns(row, answers))


def _columns(row: Row, answers: dict[str, str]) -> Table:
    table = Table(title=escape(row.messages[-1]["content"]), title_justify="left", expand=True)
    for title in ("base", "fine-tuned"):
        table.add_column(title, ratio=1)
    table.add_row(*(escape(answer) for answer in answers.values()))
    return table


async def prove(server: Server, tuned: str, rows: Sequence[Row]) -> None:
    """Print the share of right answers, base against fine-tuned."""
    table = Table("model", "right", "share")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
        with Progress(*columns, console=console) as progress:
            for model in (base.NAME, tuned):
                bar = progress.add_task(model, total=len(rows))
                result = await score(client, model, rows, lambda bar=bar: progress.advance(bar))
                table.add_row(model, str(result), f"{result.share:.0%}")
    console.print(table)


async def show_forgetting(server: Server, protected: str, unprotected: str, rows: Sequence[Row]) -> None:
    """Print each model's answers to questions outside of the task, and how good it is at the task."""
    models = {"base": base.NAME, "tuned, without replay": unprotected, "tuned, with replay": protected}
    table = Table("", *models, expand=True, show_lines=True)
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
        for question in GENERAL:
            prompt = ({"role": "user", "content": question},)
            table.add_row(question, *[escape(await ask(client, model, prompt)) for model in models.values()])
        table.add_row("unseen tickets right", *[str(await score(client, model, rows)) for model in models.values()])
    console.print(table)


def next_steps(tuned: str, row: Row) -> None:
    """Print what to try next."""
    body = {"model": tuned, "temperature": 0, "messages": row.messages}
    for title, lines in (
        ("The demo's models, on http://127.0.0.1:8000/v1, without a key:", "make serve"),
        (
            "Call yours:",
            "curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\\n"
            f"  -d '{json.dumps(body)}'",
        ),
        (
            "From Java:",
            'OpenAiChatModel.builder().baseUrl("http://127.0.0.1:8000/v1").apiKey("any")\n'
            f'  .modelName("{tuned}").build().chat("...");',
        ),
        (
            "A base model of your own, on a CPU or a GPU, with keys:",
            ".venv/bin/tuneport serve --model Qwen/Qwen3-0.6B",
        ),
    ):
        console.print(f"[bold]{title}[/]")
        console.print(lines, soft_wrap=True, markup=False, style="cyan")


if __name__ == "__main__":
    sys.exit(main())

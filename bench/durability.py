"""Kills the trainer, the server, or both at random moments, `KILLS` times each, and checks the jobs' results.

Meanwhile jobs on a tiny random model run one after another. Every job must end like an undisturbed one: succeeded, with
every step, each with the same loss bit by bit, and never with two trainers at once.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from demo.server import free_port
from server.state.status import ENDED, Status
from training.directory import JobDirectory, read_lines

VICTIMS = ("trainer", "server", "both")
KILLS = 20
JOBS = 12  # they run one after another while the killing goes on
LONGEST_WAIT_SECONDS = 16.0
JOB_SECONDS = 300.0  # limit for a job, which takes seconds
STOP_SECONDS = 60.0
SERVE = ("server.cli", "serve")
QUICK: Any = {"n_epochs": 6, "batch_size": 4, "replay_share": 0}


class Victim:
    """A server on one data folder, started again after each kill."""

    def __init__(self, model: Path, data: Path) -> None:
        self.data = data
        self._port = free_port()
        self._command = [sys.executable, "-m", *SERVE, "--model", str(model), "--port", str(self._port)]
        self._command += ["--data-dir", str(data), "--no-auth", "--max-loras", "1"]
        data.mkdir(parents=True)
        self.client = OpenAI(base_url=f"http://127.0.0.1:{self._port}/v1", api_key="none", max_retries=0)
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        with (self.data / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{self._port}/health").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start; see {self.data / 'server.log'}")

    def kill_server(self) -> None:
        """SIGKILL to the server and its engine; trainers survive, since they have their own sessions."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_trainer(self) -> None:
        """SIGKILL to the running trainer, if any."""
        for folder in (self.data / "jobs").glob("ftjob-*"):
            trainer = JobDirectory(folder).trainer_pid()
            if trainer is not None:
                os.kill(trainer, signal.SIGKILL)

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and its trainers."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill_server()
        self.kill_trainer()


def measure(model: Path, work: Path) -> dict[str, Any]:
    """Measure everything; return it as JSON."""
    tiny = _tiny(model, work / "tiny")
    rows = work / "rows.jsonl"
    rows.write_text("".join(json.dumps(_row(n)) + "\n" for n in range(60)))
    return {victim: _scenario(victim, tiny, rows, work / victim) for victim in VICTIMS}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| killed | times | jobs | succeeded | as untouched (every step's loss) | two trainers at once |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {victim} | {one['kills']} | {one['jobs']} | {one['succeeded']} | {one['same']} | {one['twice']} |"
        for victim, one in results.items()
    ]
    return "\n".join(lines)


def _scenario(victim: str, tiny: Path, rows: Path, data: Path) -> dict[str, int]:
    with Victim(tiny, data) as server:
        return _killed(victim, server, rows)


def _killed(victim: str, server: Victim, rows: Path) -> dict[str, int]:
    dice = random.Random(victim)
    file = server.client.files.create(file=("rows.jsonl", rows.read_bytes()), purpose="fine-tune")

    def create() -> str:
        return server.client.fine_tuning.jobs.create(
            model="tiny", training_file=file.id, seed=1, hyperparameters=QUICK
        ).id

    reference = create()
    _wait(server, [reference])
    jobs = [create() for _ in range(JOBS)]
    for number in range(KILLS):
        time.sleep(dice.uniform(0, LONGEST_WAIT_SECONDS))
        if victim != "server":
            server.kill_trainer()
        if victim != "trainer":
            server.kill_server()
            server.start()
        if all(server.client.fine_tuning.jobs.retrieve(job).status == Status.SUCCEEDED for job in jobs):
            jobs += [create() for _ in range(JOBS // 3)]
        print(victim, "killed", number + 1, flush=True)
    statuses = _wait(server, jobs)
    wanted = _steps(server, reference)
    outcomes = [_steps(server, job) for job in jobs]
    return {
        "kills": KILLS,
        "jobs": len(jobs),
        "succeeded": statuses.count(Status.SUCCEEDED),
        "same": sum(_same(one, wanted) for one in outcomes),
        "twice": sum(_twice(one) for one in outcomes),
    }


def _wait(server: Victim, jobs: list[str]) -> list[str]:
    deadline = time.monotonic() + JOB_SECONDS * len(jobs)
    while True:
        statuses = [server.client.fine_tuning.jobs.retrieve(job).status for job in jobs]
        if all(status in ENDED for status in statuses):
            return statuses
        if time.monotonic() > deadline:
            raise RuntimeError(f"jobs still {statuses} after {JOB_SECONDS * len(jobs):.0f} s; see {server.data}")
        time.sleep(1)


def _steps(server: Victim, job: str) -> list[tuple[int, float]]:
    lines = read_lines(JobDirectory(server.data / "jobs" / job).metrics_file)
    return [(line["step"], line["train_loss"]) for line in lines if "train_loss" in line]


def _same(steps: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> bool:
    return dict(steps) == dict(wanted)  # if a step was trained again, the last time counts


def _twice(steps: list[tuple[int, float]]) -> bool:
    """Whether two trainers wrote at once: one alone goes to the next step or back to a checkpoint, and skips none."""
    back = [second - first for (first, _), (second, _) in pairwise(steps) if second <= first]
    forth = [second - first for (first, _), (second, _) in pairwise(steps) if second > first + 1]
    return bool(forth) or len(back) > KILLS


def _row(number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"Say {number} and nothing else, please, whatever comes"},
            {"role": "assistant", "content": f"{number} it is, as you wished"},
        ]
    }


def _tiny(model: Path, target: Path) -> Path:
    """A random Llama of two layers with the model's tokenizer: a step takes milliseconds."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(target)
    AutoTokenizer.from_pretrained(model).save_pretrained(target)
    return target

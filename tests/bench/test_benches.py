"""Every bench in its shortest form runs to its table. Stock vLLM and TRL are real, Tuneport has a scripted engine."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from bench import durability, frontend, hotload, lora, many, memory, plain_trl, servers, serving, training
from bench.servers import TUNEPORT, Target
from tests.inprocess import in_process
from tests.scripted import ScriptedEngine

Serve = Callable[..., contextlib.AbstractContextManager[Target]]
SHORTEST: dict[Any, dict[str, Any]] = {
    serving: {"HOT_LOADS": 1, "STARTS": 1},
    lora: {"ROUNDS": 1, "PAUSE_SECONDS": 0, "ADAPTERS": 4, "REQUESTS": {1: 1, 4: 4}},
    frontend: {"ROUNDS": 1, "PAUSE_SECONDS": 0, "CLIENTS": {1: 1}, "IDLE": 4, "IDLE_SECONDS": 0.1, "BESIDE_IDLE": 1},
    hotload: {"STREAMS": 2, "STREAM_TOKENS": 5, "LOADS": 2, "PAUSE_SECONDS": 0, "SETTLE_SECONDS": 0.1},
    many: {"ADAPTERS": 6, "CLIENTS": 2, "REQUESTS": 10, "TOKENS": 2},
    memory: {"ADAPTERS": 2, "CYCLES": 3, "SEEN": (1, 3)},
}


@pytest.fixture(scope="session")
def stock(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """vLLM's own server, as the benches start it."""
    with servers.stock(tiny, tmp_path_factory.mktemp("stock") / "log") as target:
        yield target


@pytest.fixture
def ours(tiny_base: BaseModel, tokenizer: Any) -> Serve:
    @contextlib.contextmanager
    def serve(_model: Path, data_dir: Path, **settings: str) -> Iterator[Target]:
        engine = ScriptedEngine(tokenizer=tokenizer)
        with in_process(tiny_base, engine, data_dir, adapter_root=[data_dir.absolute()], **settings) as server:
            yield Target(TUNEPORT, server.base_url, server.api_key, tiny_base.name, 0.1, os.getpid())

    return serve


@pytest.mark.parametrize("bench", SHORTEST, ids=lambda bench: bench.__name__)
def test_a_bench_runs_to_its_table(
    bench: Any, stock: Target, ours: Serve, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SHORTEST[bench].items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "tuneport", ours)
    if hasattr(bench, "stock"):
        monkeypatch.setattr(bench, "stock", lambda *_, **__: contextlib.nullcontext(stock))
    environment = dict(os.environ)
    text = bench.table(bench.measure(tiny, tmp_path))
    assert dict(os.environ) == environment, "what one bench sets would reach the next one"
    assert text.count("\n") >= 1 or bench is memory
    assert "nan" not in text


@pytest.mark.timeout(300)
def test_the_training_bench(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL in this process, whose imports are done."""
    monkeypatch.setattr(training, "ROUNDS", 1)
    monkeypatch.setattr(training, "ROWS", 16)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # to be put back: plain_trl does without

    def here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        _python, _flag, module, kind, order = command
        assert module == "bench.plain_trl"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            plain_trl.main(kind, training.json.loads(Path(order).read_text()))
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(training.subprocess, "run", here)
    results = training.measure(tiny, tmp_path)
    assert set(results) == set(training.KINDS)
    assert all(one["peak_bytes"] > 0 and one["start_seconds"] > 0 for rounds in results.values() for one in rounds)
    assert training.table(results).count("\n") == 1 + len(training.KINDS)


@pytest.mark.timeout(400)
def test_two_kills_lose_no_job(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest of proof `durability`: server and trainer killed twice, the jobs end as an untouched one."""
    shortest = {"VICTIMS": ("both",), "KILLS": 2, "JOBS": 1, "LONGEST_WAIT_SECONDS": 3.0}
    for name, value in shortest.items():
        monkeypatch.setattr(durability, name, value)
    monkeypatch.setattr(durability, "SERVE", ("tests.scripted_server",))
    results = durability.measure(smollm2, tmp_path)
    assert results["both"]["kills"] == 2
    assert results["both"]["succeeded"] == results["both"]["same"] == results["both"]["jobs"] >= 1
    assert results["both"]["twice"] == 0
    assert durability.table(results).endswith("| 0 |")

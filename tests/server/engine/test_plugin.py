"""What the plug-in does in an engine's process."""

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.lora import lora_model
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig, FusedMoEParallelConfig, RoutingMethodType
from vllm.model_executor.layers.fused_moe.oracle.unquantized import select_unquantized_moe_backend

from adapters.files import tensors
from server.engine.plugin import Whole, register
from server.engine.seeds import SeededRunner


def leaked(read: Callable[[str], object], path: Path) -> int:
    """Bytes that 200 readings of a file leave behind."""
    for _ in range(20):
        read(str(path))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        read(str(path))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_reading_adapters_leaks_nothing_and_safetensors_itself_still_does(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"t{n}": torch.randn(4, 4) for n in range(50)}, path)

    def with_(opened: Any) -> Callable[[str], object]:
        def read(path: str) -> dict[str, torch.Tensor]:
            with opened(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

        return read

    ours = with_(Whole)(str(path))
    theirs = with_(safe_open)(str(path))
    assert ours.keys() == theirs.keys()  # pyright: ignore
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # pyright: ignore
    assert leaked(with_(Whole), path) < 10_000
    assert leaked(with_(safe_open), path) > 200_000, "safetensors leaks no more: Whole can go"
    assert leaked(lambda path: [tensor.finite() for tensor in tensors.read(Path(path))], path) < 10_000


def test_vllm_reads_with_it() -> None:
    register()
    assert lora_model.safetensors.safe_open is Whole


def test_a_generator_gives_nothing_for_a_token_that_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of vLLM's step needs a model; what it does to generators is this."""
    from vllm.v1.worker import cpu_worker
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def sample(runner: Any) -> dict[int, float]:
        return {place: float(torch.rand(1, generator=one)) for place, one in runner.input_batch.generators.items()}

    def take_back(runner: Any) -> None:
        for place in np.nonzero(runner.discard_request_mask.np)[0]:
            one = runner.input_batch.generators.get(int(place))
            if one is not None:
                one.set_offset(one.get_offset() - 4)

    monkeypatch.setattr(CPUModelRunner, "_sample", sample)
    monkeypatch.setattr(CPUModelRunner, "_bookkeeping_sync", take_back)
    register()
    assert cpu_worker.CPUModelRunner is SeededRunner
    runner: Any = object.__new__(SeededRunner)
    runner.input_batch = SimpleNamespace(num_reqs=2, generators={n: torch.Generator().manual_seed(7) for n in range(2)})
    runner.discard_request_mask = SimpleNamespace(np=np.array([True, False]))
    first = runner._sample()
    runner._bookkeeping_sync()
    runner.discard_request_mask = SimpleNamespace(np=np.array([False, False]))
    second = runner._sample()
    runner._bookkeeping_sync()
    assert first.keys() == {1}
    assert second[0] == first[1], "its first number, though a step was thrown away"
    assert second[1] != first[1]


def test_experts_keep_the_cpus_own_kernel_beside_adapters() -> None:
    """vLLM picks Triton's for them, which a CPU does not have: the first request would end the engine."""
    register()
    config = FusedMoEConfig(
        num_experts=4,
        experts_per_token=2,
        hidden_dim=64,
        intermediate_size=32,
        num_local_experts=4,
        num_logical_experts=4,
        activation=MoEActivation.SILU,
        device="cpu",
        routing_method=RoutingMethodType.Renormalize,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.float32,
        is_lora_enabled=True,
    )
    assert select_unquantized_moe_backend(config)[0].value == "CPU"

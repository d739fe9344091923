"""The CPU kernel against the plain formula, for every mix of base rows and slots, few rows and many, each dtype."""

import pytest
import torch
from vllm.lora.layers import LoRAMapping

from server.engine.lora_cpu import PRODUCT_ROWS, SlotPunicaWrapper, stock_is_right

SLOTS, RANK, IN, SLICES = 4, 16, 24, (16, 8, 8)
TOLERANCE = {torch.bfloat16: 2**-7, torch.float32: 1e-5}  # relative to sums of magnitude 1 to 10

Weights = tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]


def weights(seed: int, ranks: list[int], dtype: torch.dtype = torch.bfloat16) -> Weights:
    """Stacked A and B as vLLM holds them: padded with zeros from each adapter's rank to the highest."""
    generator = torch.Generator().manual_seed(seed)
    a = tuple((torch.randn(SLOTS, 1, RANK, IN, generator=generator) / 5).to(dtype) for _ in SLICES)
    b = tuple((torch.randn(SLOTS, 1, size, RANK, generator=generator) / 4).to(dtype) for size in SLICES)
    for slot, rank in enumerate(ranks):
        for matrix in a:
            matrix[slot, :, rank:] = 0
        for matrix in b:
            matrix[slot, :, :, rank:] = 0
    return a, b


def reference(y: torch.Tensor, x: torch.Tensor, slots: list[int], a: Weights, b: Weights) -> torch.Tensor:
    rows = []
    for row, slot in zip(x.double(), slots, strict=True):
        parts = [row @ a_[slot, 0].double().T @ b_[slot, 0].double().T for a_, b_ in zip(a, b, strict=True)]
        rows.append(torch.cat(parts) if slot >= 0 else torch.zeros(sum(SLICES)))
    return y.double() + torch.stack(rows)


def wrapper(slots: list[int]) -> SlotPunicaWrapper:
    punica = SlotPunicaWrapper(max_num_batched_tokens=1024, max_batches=1024, device="cpu")
    take(punica, slots)
    return punica


def take(punica: SlotPunicaWrapper, slots: list[int]) -> None:
    ids = tuple(slot + 1 if slot >= 0 else 0 for slot in slots)
    punica.update_metadata(LoRAMapping(ids, ids, is_prefill=False), [1, 2, 3, 4], SLOTS, vocab_size=100)


def close(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])


MANY = PRODUCT_ROWS + 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(
    "slots",
    [
        [-1] * 5,
        [0] * 5,
        [3] * 9,
        [-1, 0, 1, 2, 3],
        [3, -1, 3, -1, 3, 3, 3, 3],
        [2],
        [-1],
        [1] * MANY,
        [0] * MANY + [-1] * 3 + [2] * MANY + [1, 2, 3],
        [3, -1] * MANY + [0] * 2,
        [2] + [0] * MANY + [1] * 20,
    ],
    ids=lambda slots: f"{len(slots)}rows",
)
def test_every_row_gets_its_own_adapter(slots: list[int], dtype: torch.dtype) -> None:
    a, b = weights(0, [16, 8, 1, 13], dtype)
    x = torch.randn(len(slots), IN).to(dtype)
    y = torch.randn(len(slots), sum(SLICES)).to(dtype)
    before = y.clone()
    wrapper(slots).add_lora_linear(y, x, a, b, 1.0, SLICES)
    assert close(y, reference(before, x, slots, a, b), dtype)
    base = [row for row, slot in enumerate(slots) if slot < 0]
    assert torch.equal(y[base], before[base])


def test_slots_loaded_anew_are_seen_and_a_batch_that_changes_too() -> None:
    a, b = weights(0, [16] * SLOTS)
    slots = [0, 1]
    punica = wrapper(slots)
    for step in range(4):
        if step == 1:
            a[0][0].copy_(torch.randn_like(a[0][0]))
            take(punica, slots)
        if step == 2:
            slots = [1, 3]
            take(punica, slots)
        if step == 3:
            b[2][3].zero_()
            take(punica, slots)
        x, y = torch.randn(2, IN).bfloat16(), torch.zeros(2, sum(SLICES)).bfloat16()
        before = y.clone()
        punica.add_lora_linear(y, x, a, b, 1.0, SLICES)
        assert close(y, reference(before, x, slots, a, b), torch.bfloat16), step


def test_nan_stays_nan() -> None:
    a, b = weights(0, [16] * SLOTS)
    x, y = torch.randn(2, IN).bfloat16(), torch.zeros(2, sum(SLICES)).bfloat16()
    x[0, 3] = torch.nan
    wrapper([0, 0]).add_lora_linear(y, x, a, b, 1.0, SLICES)
    assert y[0].isnan().all()
    assert not y[1].isnan().any()


def test_logits_and_embeddings_leave_the_base_alone_too() -> None:
    a, b = weights(0, [16] * SLOTS)
    slots = [3, -1, 0]
    x = torch.randn(3, IN).bfloat16()
    padded = torch.zeros(3, SLICES[0] + 4).bfloat16()
    wrapper(slots).add_lora_logits(padded, x, a[0], b[0], 1.0)
    expected = reference(torch.zeros(3, sum(SLICES)), x, slots, a, b)[:, : SLICES[0]]
    assert close(padded[:, : SLICES[0]], expected, torch.bfloat16)
    assert not padded[:, SLICES[0] :].any()
    assert not padded[1].any()

    looked_up = torch.randn(3, RANK)
    embedded = torch.zeros(3, SLICES[0])
    wrapper(slots).add_lora_embedding(embedded, looked_up, b[0])
    assert not embedded[1].any()
    assert torch.allclose(embedded[0], looked_up[0] @ b[0][3, 0].float().T, atol=1e-3)


def test_vllm_still_has_the_fault() -> None:
    """When this fails, server/engine/lora_cpu.py is for speed only, and a warning at start says so too."""
    assert not stock_is_right()

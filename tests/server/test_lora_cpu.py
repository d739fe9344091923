"""The CPU kernel against the plain formula, for every mix of base rows and slots."""

import pytest
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from server.lora_cpu import SlotPunicaWrapper

SLOTS, RANK, IN, SLICES = 4, 16, 24, (16, 8, 8)


def weights(seed: int, ranks: list[int]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Stacked A and B as vLLM holds them: padded with zeros from each adapter's rank to the highest."""
    generator = torch.Generator().manual_seed(seed)
    a = tuple(torch.randn(SLOTS, 1, RANK, IN, generator=generator).bfloat16() for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, size, RANK, generator=generator).bfloat16() for size in SLICES)
    for slot, rank in enumerate(ranks):
        for matrix in a:
            matrix[slot, :, rank:] = 0
        for matrix in b:
            matrix[slot, :, :, rank:] = 0
    return a, b


def reference(
    x: torch.Tensor, slots: list[int], a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    rows = []
    for row, slot in zip(x.float(), slots, strict=True):
        parts = [row @ a_[slot, 0].float().T @ b_[slot, 0].float().T for a_, b_ in zip(a, b, strict=True)]
        rows.append(torch.cat(parts) if slot >= 0 else torch.zeros(sum(SLICES)))
    return torch.stack(rows)


def wrapper(slots: list[int]) -> SlotPunicaWrapper:
    punica = SlotPunicaWrapper(max_num_batched_tokens=64, max_batches=64, device="cpu")
    ids = tuple(slot + 1 if slot >= 0 else 0 for slot in slots)
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=False)
    punica.update_metadata(mapping, [1, 2, 3, 4], SLOTS, vocab_size=100)
    return punica


@pytest.mark.parametrize(
    "slots", [[-1] * 5, [0] * 5, [3] * 5, [-1, 0, 1, 2, 3], [3, -1, 3, -1], [0, 0, 1, 1, -1], [2], [-1]]
)
def test_every_row_gets_its_own_adapter(slots: list[int]) -> None:
    a, b = weights(0, [16, 8, 1, 16])
    x = torch.randn(len(slots), IN).bfloat16()
    y = torch.ones(len(slots), sum(SLICES))
    wrapper(slots).add_lora_linear(y, x, a, b, 1.0, SLICES)
    assert torch.allclose(y - 1, reference(x, slots, a, b), atol=1e-3)
    for row, slot in enumerate(slots):
        if slot < 0:
            assert torch.equal(y[row], torch.ones(sum(SLICES)))


def test_a_slot_loaded_anew_is_seen() -> None:
    a, b = weights(0, [16] * SLOTS)
    punica = wrapper([0, 1])
    x = torch.randn(2, IN).bfloat16()
    punica.add_lora_linear(torch.zeros(2, sum(SLICES)), x, a, b, 1.0, SLICES)
    a[0][0].copy_(torch.randn_like(a[0][0]))
    y = torch.zeros(2, sum(SLICES))
    punica.add_lora_linear(y, x, a, b, 1.0, SLICES)
    assert torch.allclose(y, reference(x, [0, 1], a, b), atol=1e-3)


def test_logits_and_embeddings_leave_the_base_alone_too() -> None:
    a, b = weights(0, [16] * SLOTS)
    slots = [3, -1, 0]
    x = torch.randn(3, IN).bfloat16()
    logits = torch.zeros(3, SLICES[0] + 4)
    wrapper(slots).add_lora_logits(logits, x, a[0], b[0], 1.0)
    expected = reference(x, slots, a, b)[:, : SLICES[0]]
    assert torch.allclose(logits[:, : SLICES[0]], expected, atol=1e-3)
    assert not logits[:, SLICES[0] :].any()

    looked_up = torch.randn(3, RANK)
    embedded = torch.zeros(3, SLICES[0])
    wrapper(slots).add_lora_embedding(embedded, looked_up, b[0])
    assert not embedded[1].any()
    assert torch.allclose(embedded[0], looked_up[0] @ b[0][3, 0].float().T, atol=1e-3)


def test_vllm_still_has_the_fault() -> None:
    """Base rows read the last slot in vLLM's own wrapper. When this fails, server/lora_cpu.py may be for speed only."""
    a, b = weights(0, [16] * SLOTS)
    stock = PunicaWrapperCPU(max_num_batched_tokens=64, max_batches=64, device="cpu")
    stock.update_metadata(LoRAMapping((0, 1), (0, 1), is_prefill=False), [1, 2, 3, 4], SLOTS, vocab_size=100)
    y = torch.zeros(2, sum(SLICES))
    stock.add_lora_linear(y, torch.randn(2, IN).bfloat16(), a, b, 1.0, SLICES)
    assert y[0].any()

"""vLLM plug-in: LoRA on a CPU, right and fast. On a GPU vLLM's own kernels stay untouched.

vLLM 0.32's CPU path gathers an adapter's weights for each token by its slot's index, and base-model tokens carry index
-1, which reads the last slot: with all slots taken, base answers that share a batch with adapters are computed with
somebody else's adapter (upstream 48421, 49656). The gather also copies whole weights a token. Here each step finds the
rows of each slot in use once, and each layer does two products a slot over just those rows, with the slices' A
matrices stacked and their B matrices on a block diagonal. They run in fp32 from cached copies: a bf16 product costs
24-30 us whatever its size, the same in fp32 4-10 us at 1-16 rows.

Registered as entry point `tuneport_lora_cpu` in group `vllm.general_plugins`, which vLLM loads in every process.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

Slot = tuple[int, torch.Tensor | None]  # slot's index and its rows; None: all rows


def register() -> None:
    """Entry point: have vLLM's CPU platform use our wrapper."""
    if current_platform.is_cpu():
        path = f"{SlotPunicaWrapper.__module__}.{SlotPunicaWrapper.__qualname__}"
        type(current_platform).get_punica_wrapper = staticmethod(lambda: path)


class SlotPunicaWrapper(PunicaWrapperCPU):
    """Computes adapters slot by slot instead of token by token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._token_slots: list[Slot] = []
        self._sampler_slots: list[Slot] = []
        self._weights: dict[tuple[int, int], _SlotWeights] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called by vLLM when the adapters of the batch's rows change."""
        super().update_metadata(*args, **kwargs)
        self._token_slots = _slots(self.token_lora_indices)
        self._sampler_slots = _slots(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y += scale * x A^T B^T for the rows of each slot.

        Shapes: y (rows, sum(output_slices)), x (rows, in), A (slots, 1, rank, in), B (slots, 1, slice, rank).
        """
        self._add(self._token_slots, y, x, lora_a_stacked, lora_b_stacked, scale)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """The same for the LM head, whose rows are the sampled positions."""
        self._add(self._sampler_slots, y, x, (lora_a_stacked,), (lora_b_stacked,), scale)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **_: Any
    ) -> None:
        """y += x B^T for the rows of each slot; x (rows, rank) was looked up in the embedding's A."""
        flat = y.view(-1, y.shape[-1])
        for slot, rows in self._token_slots:
            product = _pick(x.view(-1, x.shape[-1]), rows).float() @ lora_b_stacked[slot, 0].float().T
            _accumulate(flat, rows, product)

    def _add(
        self,
        slots: list[Slot],
        y: torch.Tensor,
        x: torch.Tensor,
        a_stacked: tuple[torch.Tensor, ...],
        b_stacked: tuple[torch.Tensor, ...],
        scale: float,
    ) -> None:
        if not slots:
            return
        x = x.view(-1, x.shape[-1])
        y = y.view(-1, y.shape[-1])
        for slot, rows in slots:
            weights = self._slot_weights(slot, a_stacked, b_stacked, scale)
            if weights.rank:
                _accumulate(y, rows, (_pick(x, rows).float() @ weights.a) @ weights.b)

    def _slot_weights(
        self, slot: int, a_stacked: tuple[torch.Tensor, ...], b_stacked: tuple[torch.Tensor, ...], scale: float
    ) -> "_SlotWeights":
        key = (a_stacked[0].data_ptr(), slot)
        version = sum(tensor._version for tensor in (*a_stacked, *b_stacked))
        weights = self._weights.get(key)
        if weights is None or weights.version != version:
            weights = self._weights[key] = _SlotWeights(slot, a_stacked, b_stacked, scale, version)
        return weights


class _SlotWeights:
    """fp32 copies of one slot of one layer: `a` (in, ranks), `b` (ranks, out), trimmed to the adapter's own rank."""

    def __init__(
        self,
        slot: int,
        a_stacked: tuple[torch.Tensor, ...],
        b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        version: int,
    ) -> None:
        a = [stacked[slot, 0] for stacked in a_stacked]
        b = [stacked[slot, 0] for stacked in b_stacked]
        used = [int(matrix.any(dim=1).nonzero().max()) + 1 if matrix.any() else 0 for matrix in a]
        self.version = version
        self.rank = sum(used)
        self.a = torch.cat([matrix[:rank].float() for matrix, rank in zip(a, used, strict=True)]).T.contiguous()
        self.b = torch.block_diag(*(matrix[:, :rank].T.float() * scale for matrix, rank in zip(b, used, strict=True)))


def _slots(indices: torch.Tensor) -> list[Slot]:
    """The slots in use and their rows; index -1 is the base model, and no slot."""
    used = indices.unique().tolist()
    if len(used) == 1 and used[0] >= 0:
        return [(used[0], None)]
    return [(slot, (indices == slot).nonzero().squeeze(1)) for slot in used if slot >= 0]


def _pick(x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return x if rows is None else x.index_select(0, rows)


def _accumulate(y: torch.Tensor, rows: torch.Tensor | None, product: torch.Tensor) -> None:
    width = product.shape[1]  # the LM head's rows may be padded beyond the adapter's
    if rows is None:
        y[:, :width] += product
    else:
        y[:, :width].index_add_(0, rows, product.to(y.dtype))

"""LoRA on a CPU in vLLM, correct and fast. On a GPU, vLLM's own kernels are used.

vLLM 0.32's CPU path gathers an adapter's weights for each token by its slot's index. Tokens of the base have index -1,
which reads the last slot: if all slots are taken, base answers in a batch with adapters are computed with another
request's adapter (upstream 48421, 49656). The gather also copies all weights for each token. Here the rows are sorted
by slot once a step. Slots with few rows (decoding) go through one compiled operator per layer (lora_kernel.py); slots
with many contiguous rows (prompts) through two bf16 products, A matrices stacked and B matrices on a block diagonal.

The plug-in (server/engine/plugin.py) registers it in every process of an engine.
"""

import logging
from typing import Any

import numpy as np
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

logger = logging.getLogger(__name__)

PRODUCT_ROWS = 256  # from this many contiguous rows of a slot on, torch's products are faster than the kernel

Rows = slice | torch.Tensor
Stacked = tuple[torch.Tensor, ...]


def register() -> None:
    """Make vLLM's CPU platform use our wrapper."""
    if current_platform.is_cpu():
        path = f"{SlotPunicaWrapper.__module__}.{SlotPunicaWrapper.__qualname__}"
        type(current_platform).get_punica_wrapper = staticmethod(lambda: path)


def stock_is_right() -> bool:
    """Whether the installed vLLM computes base rows correctly without this module, which then only adds speed."""
    stock = PunicaWrapperCPU(max_num_batched_tokens=2, max_batches=2, device="cpu")
    stock.update_metadata(LoRAMapping((0, 1), (0, 1), is_prefill=False), [1], 1, vocab_size=1)
    y = torch.zeros(2, 1)
    stock.add_lora_linear(y, torch.ones(2, 1), (torch.ones(1, 1, 1, 1),), (torch.ones(1, 1, 1, 1),), 1.0, (1,))
    return y.squeeze(1).tolist() == [0.0, 1.0]


class SlotPunicaWrapper(PunicaWrapperCPU):
    """Computes adapters slot by slot instead of token by token."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens = self._samples = _Batch(torch.empty(0, dtype=torch.long))
        self._layers: dict[int, _Layer] = {}
        self._scratch = _Scratch()
        if stock_is_right():
            logger.warning("this vLLM's own CPU LoRA path leaves base rows alone; ours only speeds it up")

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Called by vLLM when the adapters of the batch's rows, or those in the slots, change."""
        super().update_metadata(*args, **kwargs)
        self._tokens = _Batch(self.token_lora_indices)
        self._samples = _Batch(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Stacked,
        lora_b_stacked: Stacked,
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y += scale * x A^T B^T for the rows of each slot.

        Shapes: y (rows, sum(output_slices)), x (rows, in), A (slots, 1, rank, in), B (slots, 1, slice, rank).
        """
        if self._tokens.groups:
            self._add(self._tokens, y, x, lora_a_stacked, lora_b_stacked, scale)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """As `add_lora_linear`, for the LM head: rows are sampled positions, and y may be wider than B (padding)."""
        flat, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._samples.groups:
            _accumulate(flat, rows, x[rows] @ lora_a_stacked[slot, 0].T, lora_b_stacked[slot, 0].T * scale)

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **_: Any
    ) -> None:
        """y += x B^T for the rows of each slot; x (rows, rank) was looked up in the embedding's A."""
        flat, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._tokens.groups:
            _accumulate(flat, rows, x[rows].float(), lora_b_stacked[slot, 0].float().T)

    def _add(
        self, batch: "_Batch", y: torch.Tensor, x: torch.Tensor, a_stacked: Stacked, b_stacked: Stacked, scale: float
    ) -> None:
        layer = self._layers.get(id(a_stacked))
        if layer is None:
            layer = self._layers[id(a_stacked)] = _Layer(a_stacked, b_stacked, scale, self._scratch)
        layer.add(batch, y, x)


class _Batch:
    """A step's rows by slot; index -1 means the base model, which has no slot.

    Attributes:
        groups: every slot in use, with its rows.
        many: the slots with enough contiguous rows for products.
        rows, slots: the remaining `count` rows and their slots, sorted by slot, for the kernel.
    """

    def __init__(self, indices: torch.Tensor) -> None:
        slots, order = indices.sort(stable=True)
        used, counts = slots.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        self.groups: list[tuple[int, Rows]] = []
        self.many: list[tuple[int, Rows]] = []
        few: list[slice] = []
        for slot, begin, end in zip(used.tolist(), [0, *ends], ends, strict=False):
            if slot < 0:
                continue
            rows = _as_slice(order[begin:end])
            self.groups.append((slot, rows))
            if end - begin >= PRODUCT_ROWS and isinstance(rows, slice):
                self.many.append((slot, rows))
            else:
                few.append(slice(begin, end))
        self.rows = torch.cat([order[part] for part in few]) if few else order[:0]
        self.slots = torch.cat([slots[part] for part in few]) if few else order[:0]
        self.count = len(self.rows)


class _Layer:
    """One layer's adapters in the form that kernel and products need, made anew after vLLM wrote to its slots."""

    def __init__(self, a_stacked: Stacked, b_stacked: Stacked, scale: float, scratch: "_Scratch") -> None:
        # Imported late: a starting worker inspects all loaded modules, and fails on numba's.
        from server.engine import lora_kernel as kernel

        self._kernel = kernel
        self._a_stacked, self._b_stacked, self._scale = a_stacked, b_stacked, scale
        self._scratch = scratch
        self._takes_kernel = a_stacked[0].dtype is torch.bfloat16
        self._call = kernel.empty_call(
            a_stacked[0].shape[-1], [stacked.shape[2] for stacked in b_stacked], a_stacked[0].shape[0]
        )
        self._call_at = self._call.ctypes.data
        self._threads = torch.get_num_threads()
        self._batch: _Batch | None = None
        self._version = -1
        self._described: set[int] = set()
        # Reused: new memory costs more than the copy into it.
        self._floats: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._product: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, batch: "_Batch", y: torch.Tensor, x: torch.Tensor) -> None:
        """Add the batch's adapters to y (rows, width); x is (rows, in)."""
        if batch is not self._batch:
            self._prepare(batch)
        products = batch.groups
        if self._takes_kernel and x.is_contiguous() and y.is_contiguous():
            products = batch.many
            if batch.count:
                self._call[self._kernel.X] = x.data_ptr()
                self._call[self._kernel.Y] = y.data_ptr()
                self._kernel.run(self._call, self._call_at, self._threads)
        for slot, rows in products:
            a, b = self._product_weights(slot)
            if a.shape[0]:
                _accumulate(y, rows, x[rows] @ a.T, b)

    def _prepare(self, batch: "_Batch") -> None:
        """Update the kernel's call for a new composition of the batch, and weights that may have changed."""
        version = sum(tensor._version for tensor in (*self._a_stacked, *self._b_stacked))
        if version != self._version:
            self._described.clear()
            self._product.clear()
            self._version = version
        if self._takes_kernel:
            for slot, _rows in batch.groups:
                if slot not in self._described:
                    self._describe(slot)
            self._call[self._kernel.ROWS] = batch.rows.data_ptr()
            self._call[self._kernel.SLOTS] = batch.slots.data_ptr()
            self._call[self._kernel.COUNT] = batch.count
            needed = self._threads * int(self._call[self._kernel.STRIDE])
            self._call[self._kernel.SCRATCH] = self._scratch.address(needed)
        self._batch = batch

    def _product_weights(self, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All slices' A (ranks, in), and their B^T on a block diagonal (ranks, width), in the model's dtype."""
        if slot not in self._product:
            ranks = self._ranks(slot)
            a = [stacked[slot, 0, :rank] for stacked, rank in zip(self._a_stacked, ranks, strict=True)]
            b = [stacked[slot, 0, :, :rank].T for stacked, rank in zip(self._b_stacked, ranks, strict=True)]
            self._product[slot] = torch.cat(a), torch.block_diag(*b) * self._scale
        return self._product[slot]

    def _describe(self, slot: int) -> None:
        if slot not in self._floats:
            self._floats[slot] = [
                (torch.empty(a.shape[2:], dtype=torch.float32), torch.empty(b.shape[:1:-1], dtype=torch.float32))
                for a, b in zip(self._a_stacked, self._b_stacked, strict=True)
            ]
        for part, rank in enumerate(self._ranks(slot)):
            a, b = self._floats[slot][part]
            a[:rank].copy_(self._a_stacked[part][slot, 0, :rank])
            torch.mul(self._b_stacked[part][slot, 0, :, :rank].T, self._scale, out=b[:rank])
            self._call[self._kernel.entry(self._call, slot, part)] = rank, a.data_ptr(), b.data_ptr()
        self._described.add(slot)

    def _ranks(self, slot: int) -> list[int]:
        """The adapter's real rank in each slice; vLLM pads it to the highest rank with zeros."""
        ranks: list[int] = []
        for stacked in self._a_stacked:
            used = np.flatnonzero(stacked[slot, 0].view(torch.uint8).numpy().any(axis=1))
            ranks.append(int(used[-1]) + 1 if used.size else 0)
        return ranks


class _Scratch:
    """The kernel's scratch space. All layers share it, since they run one after the other; it only grows."""

    def __init__(self) -> None:
        self._blocks = [np.empty(0, np.uint8)]

    def address(self, size: int) -> int:
        """Address of at least `size` bytes; it stays valid."""
        if self._blocks[-1].size < size:
            self._blocks.append(np.empty(size, np.uint8))
        return self._blocks[-1].ctypes.data


def _as_slice(rows: torch.Tensor) -> Rows:
    """Sorted row numbers as a slice if they are contiguous, as a prompt's are, so that indexing makes no copy."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _accumulate(y: torch.Tensor, rows: Rows, h: torch.Tensor, b: torch.Tensor) -> None:
    """y[rows] += h b, added in fp32 and rounded once."""
    width = b.shape[1]  # y of the LM head may be wider (padding)
    if isinstance(rows, slice) and width == y.shape[1] and h.dtype == y.dtype:
        y[rows].addmm_(h, b)
    elif isinstance(rows, slice):
        y[rows, :width] += (h @ b).to(y.dtype)
    else:
        y[:, :width].index_add_(0, rows, (h @ b).to(y.dtype))

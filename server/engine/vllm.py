"""vLLM's AsyncLLM as Tuneport's engine.

On a CPU the model runs in the engine's process itself, which starts sooner and leaves a core to the API; vLLM's default
there needs another process and core. vllm is imported in `start`, on a thread, so that the server answers `/health`
within two seconds, before the engine is ready.
"""

import asyncio
import gc
import itertools
import json
import logging
import os
import platform
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.base import BaseModel
from adapters.files.validate import UNWRAPPED
from server.engine.sampling import copies, greedy, of_prompt, parameters, read, refused
from server.engine.tokens import TokenBytes
from server.engine.tools import ToolParsing
from server.errors import AdapterLoadFailed, ContextLengthExceeded, EngineUnavailable
from server.inference.engine import MAX_LOGPROBS, Delta, Sampling, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)
T = TypeVar("T")

HEALTH_CHECK_SECONDS = 0.5
COLLECT_OBJECTS = 20_000  # threshold of Python's garbage collection, in allocations; a generation-0 pass takes 1 ms
REQUESTS_FAULT = (TypeError, ValueError, OverflowError, RecursionError)  # how vLLM fails on bad requests
PLUGIN = "tuneport"  # the entry point of plugin.py, see pyproject.toml
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",  # if on, every unknown model name leaks a lock
}


@dataclass(frozen=True)
class EngineOptions:
    """What the engine is started with.

    Attributes:
        max_loras: adapters in one batch; 0: no adapters. `max_cpu_loras`: adapters held in memory.
        max_lora_rank: highest rank; it decides the cost of computing adapters, not an adapter's own rank.
        max_model_len: context in tokens; None: the model's own.
        dtype: of weights and activations; "auto": the model's own.
        kv_cache_bytes: memory for the KV cache on a CPU.
        gpu_memory_utilization: share of a GPU's memory for weights and KV cache.
        tool_parser: vLLM's name for the format of the base model's tool calls.
        tokenizer: folder of the tokenizer; None: the model's own.
    """

    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    max_model_len: int | None
    dtype: str
    kv_cache_bytes: int
    gpu_memory_utilization: float
    tool_parser: str
    tokenizer: Path | None = None


class VllmEngine:
    """An `Engine` (server/inference/engine.py) on vLLM."""

    def __init__(self, base: BaseModel, options: EngineOptions) -> None:
        self._base = base
        self._options = options
        self._llm: AsyncLLM | None = None
        self.context = 0
        self._loaded: dict[str, LoRARequest] = {}
        self._ids = itertools.count(1)  # ids are never reused: a failed load may have left traces under its id

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now."""
        return self._llm is not None and not self._llm.errored

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base model's tokenizer."""
        return self._running().get_tokenizer()  # pyright: ignore[reportReturnType]

    async def start(self) -> None:
        """Start vLLM, which takes half a minute or more."""
        if self._llm is not None:
            await self.stop()
        llm = await asyncio.to_thread(_start, self._base, self._options)
        tokenizer: Any = llm.get_tokenizer()
        self._parsing = ToolParsing(self._options.tool_parser, tokenizer)
        self._token_bytes = TokenBytes(tokenizer)
        self.context = llm.model_config.max_model_len
        self._loaded.clear()
        self._llm = llm
        await asyncio.to_thread(_settle)

    async def died(self) -> None:
        """Return when vLLM is dead."""
        while self.ready:
            await asyncio.sleep(HEALTH_CHECK_SECONDS)

    async def stop(self) -> None:
        """Shut vLLM down."""
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    async def load(self, digest: str, path: Path) -> None:
        """Hand a validated adapter to vLLM."""
        from vllm.lora.request import LoRARequest

        llm = self._running()
        request = LoRARequest(lora_name=digest, lora_int_id=next(self._ids), lora_path=str(path))
        try:
            await self._alive(llm.add_lora(request))
        except EngineUnavailable:
            raise
        except Exception as error:
            await self._alive(llm.remove_lora(request.lora_int_id))  # it may be loaded in part, and be listed as loaded
            raise AdapterLoadFailed(f"the engine refused the adapter: {error}") from error
        self._loaded[digest] = request

    async def unload(self, digest: str) -> None:
        """Free the adapter's slot and memory."""
        request = self._loaded.pop(digest, None)
        if request is not None:
            await self._alive(self._running().remove_lora(request.lora_int_id))

    async def generate(
        self, prompt: list[int], sampling: Sampling, adapter: str | None, tools: Tools | None = None
    ) -> AsyncIterator[Delta]:
        """Stream the answers; see `Engine`."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        llm = self._running()
        wanted = sampling.n if greedy(sampling) else 1  # vLLM refuses n > 1 for greedy; one answer is copied
        sampling = replace(sampling, n=sampling.n // wanted)
        room = self._room(len(prompt), sampling.max_tokens)
        calls = None
        try:
            calls = self._parsing.begin(tools, prompt, sampling) if tools else None
            asked = parameters(sampling, room, calls, self._token_bytes.specials)
        except (TypeError, ValueError, VLLMClientError) as error:
            raise refused(error, calls) from error
        if adapter is not None and adapter not in self._loaded:
            raise EngineUnavailable("the engine was started again meanwhile; try again")
        lora = self._loaded[adapter] if adapter is not None else None
        outputs = llm.generate(
            tokens_input(prompt), asked, uuid.uuid4().hex, lora_request=lora, priority=sampling.priority
        )
        try:
            async for output in outputs:
                prompt_logprobs = await of_prompt(output, sampling, self._token_bytes)
                for delta in read(output, sampling, self._token_bytes, calls, prompt_logprobs):
                    for copy in copies(delta, wanted):
                        yield copy
        except VLLMClientError as error:
            raise refused(error, calls) from error
        except (EngineDeadError, EngineGenerateError) as error:
            if isinstance(error.__cause__, REQUESTS_FAULT) and not llm.errored:
                raise refused(error.__cause__, calls) from error
            raise EngineUnavailable("the engine stopped while it answered; try again shortly") from error
        finally:
            await outputs.aclose()

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """How many tokens an answer may have, at least one."""
        room = self.context - prompt_tokens
        if room < 1 or (max_tokens or 1) > room:
            limit = f"This model's maximum context length is {self.context} tokens. However, "
            if room < 1:
                raise ContextLengthExceeded(
                    f"{limit}your messages resulted in {prompt_tokens} tokens. "
                    "Please reduce the length of the messages."
                )
            raise ContextLengthExceeded(
                f"{limit}you requested {prompt_tokens + (max_tokens or 1)} tokens ({prompt_tokens} in the messages, "
                f"{max_tokens or 1} in the completion). Please reduce the length of the messages or completion."
            )
        return room

    def _running(self) -> "AsyncLLM":
        if self._llm is None or self._llm.errored:
            raise EngineUnavailable("the engine is not ready; try again shortly (GET /ready says when)")
        return self._llm

    async def _alive(self, call: Awaitable[T]) -> T:
        """Await a utility call of vLLM; raise EngineUnavailable if the engine dies, since the call would never end."""
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=HEALTH_CHECK_SECONDS)
                if not task.done():
                    self._running()
            return task.result()
        finally:
            task.cancel()


def _start(base: BaseModel, options: EngineOptions) -> "AsyncLLM":
    cores = len(os.sched_getaffinity(0))
    for name, value in {**ENVIRONMENT, "OMP_NUM_THREADS": str(cores)}.items():
        os.environ.setdefault(name, value)
    allowed = os.environ.get("VLLM_PLUGINS")  # plug-ins that may be loaded; ours must be, for correct answers on a CPU
    if allowed is not None and PLUGIN not in allowed.split(","):
        os.environ["VLLM_PLUGINS"] = f"{allowed},{PLUGIN}"
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    if options.max_loras:
        _check_takes_adapters(base)
    device: dict[str, Any] = {"dtype": options.dtype, "gpu_memory_utilization": options.gpu_memory_utilization}
    if current_platform.is_cpu():
        device = {
            "dtype": "float32" if options.dtype == "auto" and not _bf16_pays() else options.dtype,
            "kv_cache_memory_bytes": options.kv_cache_bytes,
            "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
            # vLLM turns its own operators off since it expects to compile, but LoRA turns compiling off
            "compilation_config": {"custom_ops": ["all"]},
        }
    arguments = AsyncEngineArgs(
        model=str(base.path),
        tokenizer=str(options.tokenizer or base.path),
        **_lora(base, options),
        max_model_len=options.max_model_len,  # pyright: ignore[reportArgumentType] (None: the model's own)
        scheduling_policy="priority",  # batches wait for live requests
        max_logprobs=MAX_LOGPROBS,
        generation_config="vllm",  # take no defaults from the base's files, only OpenAI's and the manifest's
        disable_log_stats=True,
        **device,
    )
    if current_platform.is_cpu() and "lora_cpu" not in current_platform.get_punica_wrapper():
        raise RuntimeError(f"vLLM did not load the plug-in {PLUGIN}; install Tuneport as a package (`make setup`)")
    return AsyncLLM.from_engine_args(arguments)


def _check_takes_adapters(base: BaseModel) -> None:
    """Refuse a base whose class in vLLM supports no adapters; vLLM's own refusal is hidden among pages of stack traces.

    Raises:
        EngineUnavailable: the class supports no adapters.
    """
    from vllm.model_executor.models import ModelRegistry, supports_lora

    for architecture in json.loads((base.path / "config.json").read_bytes()).get("architectures") or ():
        known = ModelRegistry.models.get(architecture)
        if known is not None and not supports_lora(known.load_model_cls()):
            raise EngineUnavailable(
                f"{base.name} is a {architecture}, which vLLM serves without adapters only; choose a base of another "
                "kind"
            )


def _settle() -> None:
    """Collect a previous engine's garbage, then freeze live objects: a full pass over them stops all streams for 0.6 s.

    The threshold is raised too: at Python's 700 allocations, collection takes a tenth of a token's time at 64 streams.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS)


def _lora(base: BaseModel, options: EngineOptions) -> dict[str, Any]:
    if not options.max_loras:
        return {}
    return {
        "enable_lora": True,
        "max_loras": options.max_loras,
        "max_cpu_loras": options.max_cpu_loras,
        "max_lora_rank": options.max_lora_rank,
        "lora_target_modules": sorted({name.rsplit(".", 1)[-1] for name in base.shapes} - UNWRAPPED),
    }


def _bf16_pays() -> bool:
    """Whether bf16 is faster than fp32 on this CPU: without AVX-512, 16 clients got a quarter of fp32's tokens."""
    return platform.machine() != "x86_64" or "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split()

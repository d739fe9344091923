"""Seeds on a CPU in vLLM: without this module, a seeded request whose prompt is read in chunks kills the engine.

While a prompt is read in chunks (it is long, or many come at once), vLLM samples a token per chunk, discards it, and
rewinds the request's generator by its offset. Only GPU generators have an offset; a CPU's raises an error, which ends
the engine. So the generators of requests whose token will be discarded are set aside for the step.
"""

from typing import Any

import numpy as np
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_model_runner import CPUModelRunner


def register() -> None:
    """Make vLLM's CPU worker use our runner."""
    if current_platform.is_cpu():
        from vllm.v1.worker import cpu_worker

        cpu_worker.CPUModelRunner = SeededRunner


class SeededRunner(CPUModelRunner):
    """Samples the tokens that are discarded without their requests' generators."""

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        generators = self.input_batch.generators
        unread = np.flatnonzero(self.discard_request_mask.np[: self.input_batch.num_reqs]).tolist()
        self._kept = {place: generators.pop(place) for place in unread if place in generators}
        return super()._sample(*args, **kwargs)

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators.update(self._kept)

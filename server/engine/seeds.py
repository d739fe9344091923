"""Seeds on a CPU in vLLM: a prompt that is read in several steps must not cost the engine's life.

Each of those steps samples a token that nobody wants, and vLLM takes back what the request's generator gave for it: by
four numbers of Philox, which only a GPU's generator counts. A CPU's raises, and the engine died with all that ran: of
one request with a `seed` and a long prompt, or of many short ones at once. Here such a generator is not asked at all.
"""

from typing import Any

import numpy as np
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_model_runner import CPUModelRunner


def register() -> None:
    """Have vLLM's CPU worker use our runner."""
    if current_platform.is_cpu():
        from vllm.v1.worker import cpu_worker

        cpu_worker.CPUModelRunner = SeededRunner


class SeededRunner(CPUModelRunner):
    """Samples tokens that are thrown away without their requests' generators."""

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

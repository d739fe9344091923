"""Prometheus metrics by model, adapters included; vLLM's own metrics only have the base's name."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_EVERY_SECONDS = 0.1
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Everything `/metrics` shows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tuneport_requests", "Answered generation requests.", ("model", "status"), registry=self.registry
        )
        self.prompt_tokens = Counter("tuneport_prompt_tokens", "Prompt tokens.", ("model",), registry=self.registry)
        self.completion_tokens = Counter(
            "tuneport_completion_tokens", "Generated tokens.", ("model",), registry=self.registry
        )
        self.first_token_seconds = Histogram(
            "tuneport_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "tuneport_request_seconds",
            "From the request's arrival to its last token.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.running = Gauge(
            "tuneport_running_requests", "Requests being answered.", ("model",), registry=self.registry
        )
        self.loads = Counter("tuneport_adapter_loads", "Adapters loaded.", ("result",), registry=self.registry)
        self.load_seconds = Histogram(
            "tuneport_adapter_load_seconds", "Time to load an adapter.", buckets=SECONDS, registry=self.registry
        )
        self.resident = Gauge(
            "tuneport_resident_adapters", "Adapters, and full models, in memory.", ("kind",), registry=self.registry
        )
        self.waiting = Gauge(
            "tuneport_waiting_requests", "Requests that wait for their turn.", ("kind",), registry=self.registry
        )
        self.engine_deaths = Counter("tuneport_engine_deaths", "Times the engine died.", registry=self.registry)
        self.loop_lag = Histogram(
            "tuneport_loop_lag_seconds",
            "How long what was due on the event loop had to wait: while it waits, no stream goes on.",
            buckets=LAG_SECONDS,
            registry=self.registry,
        )
        self.jobs = Counter("tuneport_jobs", "Fine-tuning jobs that ended.", ("status",), registry=self.registry)
        self.queue_failures = Counter(
            "tuneport_queue_failures",
            "Times the queue of jobs, or of batches, could not go on and waited to try again.",
            ("queue",),
            registry=self.registry,
        )
        self._by_model = (
            self.prompt_tokens,
            self.completion_tokens,
            self.first_token_seconds,
            self.request_seconds,
            self.running,
        )

    async def watch_loop(self) -> None:
        """Measure the event loop's lag ten times a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_SECONDS
            await asyncio.sleep(LAG_EVERY_SECONDS)
            self.loop_lag.observe(loop.time() - due)

    def forget(self, model: str) -> None:
        """Remove the series of a removed model."""
        for metric in (*self._by_model, self.requests):
            metric.remove_by_labels({"model": model})

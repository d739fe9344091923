"""The objects that routers use; made once by app.py, and passed to routes by a dependency."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from server.batches.runner import BatchRunner
from server.http.limits import RateLimits
from server.http.streaming import Replies
from server.inference.answering import Answering, Asked, Generation
from server.inference.catalog import Catalog
from server.inference.embedder import Embedder
from server.inference.engine import Engine
from server.inference.supervisor import Supervisor
from server.jobs.creation import Creation
from server.jobs.queue import JobQueue
from server.metrics import Metrics
from server.settings import Settings
from server.state.batches import Batches
from server.state.files import Files
from server.state.jobs import Jobs
from server.state.keys import Key, Keys
from server.state.permissions import Permissions
from server.state.responses import Responses
from server.state.uploads import Uploads


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
    engine: Engine
    answering: Answering
    replies: Replies
    supervisor: Supervisor
    catalog: Catalog
    keys: Keys
    files: Files
    uploads: Uploads
    permissions: Permissions
    responses: Responses
    batches: Batches
    batch_runner: BatchRunner
    embedder: Embedder
    jobs: Jobs
    queue: JobQueue
    creation: Creation
    metrics: Metrics
    limits: RateLimits
    registrations: CapacityLimiter
    graders: CapacityLimiter
    creations: CapacityLimiter

    def beginning(
        self, asked: Asked, request: Request, caller: Key
    ) -> Callable[[AsyncExitStack], Awaitable[Generation]]:
        """A function that begins the answer within the caller's rate limits; requests of a batch are not limited."""
        priority: int = getattr(request.state, "priority", 0)

        async def begin(held: AsyncExitStack) -> Generation:
            return await self.answering.begin(asked, held, priority, partial(self.limits.admit, caller, request))

        return begin

    def needs_file(self, file_id: str) -> bool:
        """Whether a job or a batch that has not ended reads the file."""
        return self.jobs.uses_file(file_id) or self.batches.uses_file(file_id)


async def services(request: Request) -> Services:
    """The running server's parts."""
    return request.app.state.services


Parts = Annotated[Services, Depends(services)]

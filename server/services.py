"""What routers work with; made once by app.py's lifespan, handed out by a dependency."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from server.batches.runner import BatchRunner
from server.http.limits import RateLimits
from server.inference.catalog import Catalog
from server.inference.embedder import Embedder
from server.inference.engine import Engine
from server.inference.supervisor import Supervisor
from server.jobs.queue import JobQueue
from server.metrics import Metrics
from server.settings import Settings
from server.state.batches import Batches
from server.state.files import Files
from server.state.jobs import Jobs
from server.state.keys import Keys
from server.state.permissions import Permissions
from server.state.responses import Responses
from server.state.uploads import Uploads


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
    engine: Engine
    supervisor: Supervisor
    catalog: Catalog
    keys: Keys
    files: Files
    uploads: Uploads
    permissions: Permissions
    responses: Responses
    batches: Batches
    runner: BatchRunner
    embedder: Embedder
    jobs: Jobs
    queue: JobQueue
    metrics: Metrics
    limits: RateLimits
    registrations: CapacityLimiter
    graders: CapacityLimiter

    def needs_file(self, file_id: str) -> bool:
        """Whether a job or a batch that has not ended reads the file."""
        return self.jobs.uses_file(file_id) or self.batches.uses_file(file_id)


async def services(request: Request) -> Services:
    """The running server's parts."""
    return request.app.state.services


Use = Annotated[Services, Depends(services)]

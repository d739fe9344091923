"""What routers work with; made once by app.py's lifespan, handed out by a dependency."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.catalog import Catalog
from server.generation import Engine
from server.http.metrics import Metrics
from server.jobs import JobQueue
from server.settings import Settings
from server.state.files import Files
from server.state.jobs import Jobs
from server.state.keys import Keys


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    keys: Keys
    files: Files
    jobs: Jobs
    queue: JobQueue
    metrics: Metrics


async def services(request: Request) -> Services:
    """The running server's parts."""
    return request.app.state.services


Use = Annotated[Services, Depends(services)]

"""`/health` and `/ready`: for load balancers, without a key.

They run on the event loop, so they answer even if other requests occupy all of the server's threads.
"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from server.services import Parts

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process is alive: always 200."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(parts: Parts) -> JSONResponse:
    """Whether the engine answers: 200, else 503."""
    answering = parts.engine.ready and parts.supervisor.status == "ready"
    status = "restarting" if parts.supervisor.status == "ready" and not answering else parts.supervisor.status
    body = {"status": status, "model": parts.catalog.base.name}
    return JSONResponse(body) if answering else JSONResponse(body, 503, {"retry-after": "1"})

"""`/health` and `/ready`: for load balancers, without a key.

They are answered on the loop: no request that fills the server's threads keeps them waiting.
"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from server.services import Parts

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(parts: Parts) -> JSONResponse:
    """The engine answers; 503 until it does, and when it no longer does."""
    answering = parts.engine.ready and parts.supervisor.status == "ready"
    status = "restarting" if parts.supervisor.status == "ready" and not answering else parts.supervisor.status
    body = {"status": status, "model": parts.catalog.base.name}
    return JSONResponse(body) if answering else JSONResponse(body, 503, {"retry-after": "1"})

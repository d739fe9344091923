"""`/health`, `/ready` and `/metrics`: for load balancers and Prometheus, without a key.

The first two are answered on the loop: no request that fills the server's threads keeps them waiting.
"""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.services import Use

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(use: Use) -> JSONResponse:
    """The engine answers; 503 until it does, and when it no longer does."""
    answering = use.engine.ready and use.supervisor.status == "ready"
    status = "restarting" if use.supervisor.status == "ready" and not answering else use.supervisor.status
    body = {"status": status, "model": use.catalog.base.name}
    return JSONResponse(body) if answering else JSONResponse(body, 503, {"retry-after": "1"})


@router.get("/metrics")
def metrics(use: Use) -> Response:
    """Prometheus metrics, by model."""
    return Response(generate_latest(use.metrics.registry), media_type=CONTENT_TYPE_LATEST)

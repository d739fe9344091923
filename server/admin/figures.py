"""`/metrics`: for Prometheus, with an admin's key, for it names every model; `open_metrics` opens it."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.services import Parts

router = APIRouter()


@router.get("/metrics")
def metrics(parts: Parts) -> Response:
    """Prometheus metrics, by model."""
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)

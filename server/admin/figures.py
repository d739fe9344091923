"""`/metrics` for Prometheus. It names every model, so it needs an admin key, unless `open_metrics` is set."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.services import Parts

router = APIRouter()


@router.get("/metrics")
def metrics(parts: Parts) -> Response:
    """Prometheus metrics, by model."""
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)

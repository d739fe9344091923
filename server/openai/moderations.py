"""`POST /v1/moderations`: always refused, since no model here knows OpenAI's categories."""

from fastapi import APIRouter

from server.errors import InvalidRequest

router = APIRouter()


@router.post("/v1/moderations")
def create() -> None:
    """Refuse.

    Raises:
        InvalidRequest: always.
    """
    raise InvalidRequest(
        "This server has no moderation model. Ask a served model to judge the text, or moderate before you call.",
        "model",
    )

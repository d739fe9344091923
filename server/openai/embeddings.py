"""`POST /v1/embeddings`."""

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from adapters.errors import AdapterNotFound
from server.errors import InvalidRequest
from server.http.identity import Caller
from server.http.streaming import CLIENT_GONE, ClientGone, until_gone
from server.openai import differences
from server.services import Parts
from training.wire import Outside

router = APIRouter()
MAX_INPUTS = 2048  # OpenAI's limit
BYTES_A_NUMBER = 4
CHARACTERS_A_TOKEN = 4  # an estimate, for the rate limit; the embedding process counts exactly

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
Ids = Annotated[list[int], Field(min_length=1)]
ManyIds = Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingRequest(Outside):
    """Texts to embed."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: Text | Texts | Ids | ManyIds
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


@router.post("/v1/embeddings")
async def create(body: EmbeddingRequest, request: Request, parts: Parts, caller: Caller) -> Any:
    """Embed texts."""
    differences.refuse("embeddings", await request.json())
    if body.model != parts.embedder.name:
        raise AdapterNotFound(body.model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(
            "token ids are of another model's tokenizer; send text "
            "(LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False)",
            "input",
        )
    await parts.limits.admit(caller, request, sum(len(str(text)) for text in texts) // CHARACTERS_A_TOKEN)
    try:
        embedded = await until_gone(request, parts.embedder.embed([str(text) for text in texts], body.dimensions))
    except ClientGone:
        return Response(status_code=CLIENT_GONE)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _wire(vector, body.encoding_format)}
            for index, vector in enumerate(embedded.vectors)
        ],
        "model": parts.embedder.name,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }


def _wire(vector: bytes, encoding: str | None) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector).decode()
    return list(struct.unpack(f"<{len(vector) // BYTES_A_NUMBER}f", vector))

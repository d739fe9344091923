"""Stored responses, so that a conversation can go on from any of them; kept for 30 days, as OpenAI does."""

import json
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Engine, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from server.errors import InvalidRequest, NotFound
from server.state.tables import Base, Written

LIFETIME_SECONDS = 30 * 24 * 3600  # as at OpenAI
MAX_CHAIN = 1000


class ResponseRow(Base):
    """A stored response; `items` is its input."""

    __tablename__ = "responses"

    id: Mapped[str] = mapped_column(Written(64), primary_key=True)
    previous_id: Mapped[str | None] = mapped_column(Written(64))
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    bytes: Mapped[int] = mapped_column(BigInteger)


class Responses:
    """Responses in the database."""

    def __init__(self, engine: Engine, max_kept: int, max_kept_bytes: int, max_bytes: int) -> None:
        """Make one.

        Args:
            max_kept: most responses; beyond that, the oldest are deleted.
            max_kept_bytes: most bytes of all responses, as JSON; beyond that, the oldest are deleted.
            max_bytes: largest conversation, as JSON, since it is read whole.
        """
        self._engine = engine
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._max_bytes = max_bytes

    def add(self, response: dict[str, Any], items: list[dict[str, Any]]) -> None:
        """Store a response and its input items."""
        row = ResponseRow(
            id=response["id"],
            previous_id=response["previous_response_id"],
            created_at=response["created_at"],
            items=items,
            body=response,
            bytes=len(json.dumps([items, response])),
        )
        with Session(self._engine) as session, session.begin():
            session.add(row)

    def get(self, response_id: str) -> dict[str, Any]:
        """The response of that id.

        Raises:
            NotFound: there is none.
        """
        return self._row(response_id).body

    def input_items(self, response_id: str) -> list[dict[str, Any]]:
        """The input items of a response.

        Raises:
            NotFound: there is no such response.
        """
        return self._row(response_id).items

    def conversation(self, response_id: str | None) -> list[dict[str, Any]]:
        """All items up to and including a response's output; none for None.

        Raises:
            InvalidRequest: it or an earlier response is missing, or the conversation is too long.
        """
        chain: list[ResponseRow] = []
        size = 0
        while response_id is not None:
            try:
                chain.append(self._row(response_id))
            except NotFound:
                raise InvalidRequest(
                    f"Previous response with id '{response_id}' not found.", "previous_response_id"
                ) from None
            if len(chain) > MAX_CHAIN:
                raise InvalidRequest(f"the conversation has more than {MAX_CHAIN} responses", "previous_response_id")
            size += chain[-1].bytes
            if size > self._max_bytes:
                raise InvalidRequest(
                    f"the conversation has more than {self._max_bytes} bytes (max_body_bytes)", "previous_response_id"
                )
            response_id = chain[-1].previous_id
        return [item for row in reversed(chain) for item in (*row.items, *row.body["output"])]

    def delete(self, response_id: str) -> None:
        """Delete a response.

        Raises:
            NotFound: there is none of that id.
        """
        self._row(response_id)
        with Session(self._engine) as session, session.begin():
            session.execute(delete(ResponseRow).where(ResponseRow.id == response_id))

    def delete_expired(self) -> None:
        """Delete responses older than 30 days, and the oldest beyond the limits; called regularly."""
        newest = (ResponseRow.created_at.desc(), ResponseRow.id)
        place, size = func.row_number().over(order_by=newest), func.sum(ResponseRow.bytes).over(order_by=newest)
        ranked = select(ResponseRow.id, place.label("place"), size.label("size")).subquery()
        surplus = select(ranked.c.id).where(or_(ranked.c.place > self._max_kept, ranked.c.size > self._max_kept_bytes))
        old = ResponseRow.created_at < time.time() - LIFETIME_SECONDS
        with Session(self._engine) as session, session.begin():
            session.execute(delete(ResponseRow).where(or_(old, ResponseRow.id.in_(surplus))))

    def _row(self, response_id: str) -> ResponseRow:
        with Session(self._engine) as session:
            row = session.get(ResponseRow, response_id)
            if row is None:
                raise NotFound(f"Response with id '{response_id}' not found.")
            return row

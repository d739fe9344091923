"""Who is calling: `Authorization: Bearer KEY`, as OpenAI's clients send it."""

from typing import Annotated

from fastapi import Depends, Request

from server.http.errors import Forbidden, Unauthorized
from server.services import Services, services
from server.state.keys import Key

LOCAL = Key(id="key_local", name="no-auth", hint="", admin=True, created_at=0)


async def caller(request: Request, use: Annotated[Services, Depends(services)]) -> Key:
    """The caller's key.

    Raises:
        Unauthorized: there is none, or it does not exist.
    """
    known: Key | None = getattr(request.state, "caller", None)  # a batch's lines come from within
    if known is not None:
        return known
    if use.settings.no_auth:
        return LOCAL
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("You didn't provide an API key. Send it in the header `Authorization: Bearer YOUR_KEY`.")
    key = use.keys.check(secret.strip())
    if key is None:
        shown = f"{secret[:3]}***{secret[-4:]}" if len(secret) > 12 else "***"
        raise Unauthorized(f"Incorrect API key provided: {shown}. `tuneport keys create` makes a new one.")
    return key


async def administrator(key: Annotated[Key, Depends(caller)]) -> Key:
    """The caller's key, which must be an admin's.

    Raises:
        Unauthorized: see `caller`.
        Forbidden: it is a user's.
    """
    if not key.admin:
        raise Forbidden("This needs an admin key; yours is a user key.")
    return key


Caller = Annotated[Key, Depends(caller)]
Administrator = Annotated[Key, Depends(administrator)]

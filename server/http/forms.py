"""Upload forms: repeated fields, which would be dropped silently, are refused; and a file's intended name is found."""

import re
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

from fastapi import Depends, Request, Response, UploadFile
from fastapi.routing import APIRoute

from server.errors import InvalidRequest
from server.http.wording import mended

# .NET clients send a non-ASCII name twice: first encoded as in e-mail headers, then in this form
EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?utf-8'[^']*'([^;\s\"]+)", re.IGNORECASE)

MULTIPART_BYTES = 1024**2  # form fields and boundaries around an uploaded file
MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 1024


class FormRoute(APIRoute):
    """A route whose form is read within bounds; FastAPI would read a thousand fields of a megabyte."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, which finds the form read."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            await request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
            return await handle(request)

        return bounded


async def _only_once(request: Request) -> None:
    """Refuse a field with several values, and another spelling of a known one (`expires_after.seconds`)."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [parameter.alias for parameter in route.dependant.body_params]
    objects = {name.partition("[")[0] for name in known if "[" in name}
    form = await request.form()
    for name in form:
        if name in known and len(set(form.getlist(name))) > 1:
            raise InvalidRequest(f"'{name}' stands in the form more than once; send it once", name)
        field = re.split(r"[.\[]", name)[0]
        if name not in known and field in objects:
            wanted = " and ".join(one for one in known if one.startswith(f"{field}["))
            raise InvalidRequest(f"{name[:100]!r} is no part of this form; expected {wanted}", name[:100])


OnlyOnce = Depends(_only_once)


def file_name(file: UploadFile) -> str:
    """The name of an uploaded file, or "file" if it has none."""
    extended = EXTENDED.search(file.headers.get("content-disposition", ""))
    return mended((unquote(extended[1]) if extended else file.filename) or "file")

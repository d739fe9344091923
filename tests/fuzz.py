"""Requests that schemathesis generates from the application's schema: each must get a clear answer, never a 5xx."""

from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.base import BaseModel
from server.app import create_app
from server.settings import Settings
from tests.scripted import ScriptedEngine

ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


def fuzz(base_url: str, key: str, base: BaseModel, *, cases: int, derandomize: bool) -> dict[int, int]:
    """Send at least `cases` requests; return the number of answers by status.

    Args:
        base_url: the server's URL, without `/v1`.
        derandomize: send the same requests every time.

    Raises:
        AssertionError: an answer is a 5xx, or an error not in OpenAI's form; hypothesis shows the smallest case.
    """
    app = create_app(Settings(model=str(base.path)), base, ScriptedEngine())
    operations = [result.ok() for result in schemathesis.openapi.from_dict(app.openapi()).get_all_operations()]
    met: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of([operation.as_strategy() for operation in operations]))
    def check(case: Any) -> None:
        if case.path in ANSWERS and isinstance(case.body, dict):
            longest = "max_output_tokens" if case.path == "/v1/responses" else "max_tokens"
            case.body[longest] = 1 if case.body.get(longest) is None else case.body[longest]  # else 8,000 tokens each
        answer = case.call(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        met[answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    check()
    assert sum(met.values()) >= cases
    return dict(met)

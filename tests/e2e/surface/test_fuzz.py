"""Requests that schemathesis makes up from the application's own schema: each gets a clear answer, never a 5xx.

`TUNEPORT_FUZZ_CASES=10000 .venv/bin/pytest tests/e2e/surface/test_fuzz.py` sends as many as one has time for.
"""

import os
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.base import BaseModel
from server.app import create_app
from server.settings import Settings
from tests.e2e.conftest import Running

CASES = int(os.environ.get("TUNEPORT_FUZZ_CASES", "400"))
ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


def test_no_request_gets_a_5xx(running: Running, smollm2: Path, smollm2_base: BaseModel) -> None:
    schema = schemathesis.openapi.from_dict(create_app(Settings(model=str(smollm2)), smollm2_base).openapi())
    operations = [result.ok() for result in schema.get_all_operations()]
    cases = st.one_of([operation.as_strategy() for operation in operations])
    met: dict[int, int] = {}

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize="TUNEPORT_FUZZ_CASES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: Any) -> None:
        if case.path in ANSWERS and isinstance(case.body, dict):
            longest = "max_output_tokens" if case.path == "/v1/responses" else "max_tokens"
            case.body[longest] = 1 if case.body.get(longest) is None else case.body[longest]  # else 8,000 at a time
        answer = case.call(
            base_url=running.server.base_url.removesuffix("/v1"),
            headers={"Authorization": f"Bearer {running.server.api_key}"},
            timeout=120,
        )
        met[answer.status_code] = met.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    check()
    print(met)
    assert sum(met.values()) >= CASES
    assert running.server.get("/ready").status_code == 200

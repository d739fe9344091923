"""A sample of made-up requests to the real engine; tests/proofs sends 10,000."""

import pytest

from adapters.base import BaseModel
from tests.e2e.conftest import Running
from tests.fuzz import fuzz

CASES = 300


@pytest.mark.timeout(240)
def test_no_request_gets_a_5xx(running: Running, smollm2_base: BaseModel) -> None:
    root = running.server.base_url.removesuffix("/v1")
    met = fuzz(root, running.server.api_key, smollm2_base, cases=CASES, derandomize=True)
    assert met[200] > 0
    assert running.server.get("/ready").status_code == 200

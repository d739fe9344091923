"""The recipes that other tests need a model of, as jobs: each does what its card says, surely, and forgets little."""

import pytest
from openai.types.fine_tuning import FineTuningJob

from demo.recipes import RECIPES
from tests.e2e.conftest import Running


@pytest.mark.parametrize(("fixture", "name"), [("job", "structured-extraction"), ("voice", "brand-voice")])
def test_a_job_gains_what_its_recipe_promises(
    fixture: str, name: str, running: Running, request: pytest.FixtureRequest
) -> None:
    job: FineTuningJob = request.getfixturevalue(fixture)
    assert job.status == "succeeded", job.error
    report = running.server.get(f"/v1/fine_tuning/jobs/{job.id}/report?format=json").json()
    assert report["comparisons"][0]["low"] > RECIPES[name].expected
    assert "The gate is passed" in running.server.get(f"/v1/fine_tuning/jobs/{job.id}/report").text

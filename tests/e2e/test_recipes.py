"""A recipe as a job: it does what its card says, surely, and forgets little. All of them: tests/proofs."""

from openai.types.fine_tuning import FineTuningJob

from demo.recipes import RECIPES
from tests.e2e.conftest import Running


def test_a_job_gains_what_its_recipe_promises(running: Running, job: FineTuningJob) -> None:
    assert job.status == "succeeded", job.error
    report = running.server.get(f"/v1/fine_tuning/jobs/{job.id}/report?format=json").json()
    assert report["comparisons"][0]["low"] > RECIPES["structured-extraction"].expected
    assert "The gate is passed" in running.server.get(f"/v1/fine_tuning/jobs/{job.id}/report").text

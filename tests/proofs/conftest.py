"""The tests of `make prove`: each is a proof of bench/proofs.py, which stores its figures."""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from bench import proofs
from demo import conformance
from tests.e2e.conftest import client, job, run_job, run_recipe, running  # noqa: F401 (fixtures)

HOURS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(2 * HOURS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" or report.failed:
        item.stash[PASSED] = item.stash.get(PASSED, True) and report.passed
    return report


PASSED = pytest.StashKey[bool]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A dict for what the proof measures; stored under the test's name without `test_`, passed or not."""
    measured: dict[str, Any] = {}
    started = time.monotonic()
    yield measured
    name = request.node.name.removeprefix("test_")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    passed = request.node.stash.get(PASSED, False)
    proofs.record(name, passed=passed, seconds=time.monotonic() - started, when=now, figures=measured)


@pytest.fixture(scope="session")
def voice(client: openai.OpenAI, job: FineTuningJob) -> FineTuningJob:  # noqa: F811
    """A job that learns a brand's voice with retrieved facts; after `job`, since one job runs at a time."""
    return run_recipe(client, "brand-voice", "voice")


@pytest.fixture(scope="session")
def caller(client: openai.OpenAI, voice: FineTuningJob) -> FineTuningJob:  # noqa: F811
    """A job whose result calls tools, for LangChain4j's published tests."""
    hyperparameters = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 3}
    method = {"type": "supervised", "hyperparameters": hyperparameters}
    return run_job(client, conformance.rows(), method, "caller")

"""clients/java, run by Maven as a user would."""

import re
from collections.abc import Mapping

from tests import processes
from tests.conftest import ROOT

LIMIT_SECONDS = 400  # enough for Maven to fetch everything


def maven(environment: Mapping[str, str], *flags: str, limit_seconds: float = LIMIT_SECONDS) -> str:
    """Run the tests; each must pass, or be skipped if its variable is not set. Returns Maven's output."""
    command = ["/usr/bin/env", "mvn", "-B", "-ntp", "test", *flags]
    ran = processes.run(command, cwd=ROOT / "clients" / "java", environment=environment, limit_seconds=limit_seconds)
    assert ran.returncode == 0, ran.stdout[-6000:]
    return ran.stdout


def passed(printed: str, test: str) -> tuple[int, int]:
    """How many tests of a class passed and were skipped; fails if the class did not run or a test failed."""
    found = re.search(rf"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: (\d+),.*\.{test}$", printed, re.MULTILINE)
    assert found, f"{test} did not run, or failed: {printed[-6000:]}"
    ran, skipped = int(found[1]), int(found[2])
    assert ran > skipped, f"nothing of {test} ran"
    return ran - skipped, skipped

"""Nothing that a caller sends makes others wait: a hundred bodies made for it, while sixteen clients stream."""

from pathlib import Path

import pytest

from tests import stalls

BODIES = 100


@pytest.mark.timeout(300)
def test_no_body_stops_the_others(smollm2: Path, tmp_path: Path) -> None:
    silences = stalls.measure(smollm2, tmp_path, BODIES)
    assert len(silences) == BODIES
    assert silences[0].seconds < stalls.PERCEPTIBLE_SECONDS, silences[:10]
    assert not [one for one in silences if one.status >= 500]

from collections.abc import Iterator

import pytest

from tests.training.spawned import Spawner


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()

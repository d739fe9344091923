import json
import os
import sys
from pathlib import Path

import pytest

from tests import processes
from training.directory import JobDirectory
from training.job import Failure, TrainingJob

HOLD = """
import sys, time
from pathlib import Path
from tests import processes
from training.directory import JobDirectory
with JobDirectory(Path(sys.argv[1])).running():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    job = TrainingJob(id="ftjob-1", base_model="b", base_path=tmp_path, training_file=tmp_path / "f")
    return JobDirectory.create(tmp_path / "job", job)


def test_the_lock_names_its_holder_and_goes_with_it(directory: JobDirectory) -> None:
    assert directory.trainer_pid() is None
    with processes.started([sys.executable, "-c", HOLD, str(directory.path)]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert directory.trainer_pid() == process.pid
    assert directory.trainer_pid() is None


def test_a_line_half_written_is_not_read(directory: JobDirectory) -> None:
    directory.event("one")
    directory.event("two", type="metrics", data={"step": 1})
    with directory.events_file.open("ab") as stream:
        stream.write(json.dumps({"message": "three"}).encode())
    assert [event["message"] for event in directory.events()] == ["one", "two"]
    assert [event["message"] for event in directory.events(1)] == ["two"]


def test_the_description_is_written_once_and_the_outcome_appears_whole(directory: JobDirectory) -> None:
    other = TrainingJob(id="ftjob-2", base_model="b", base_path=Path(), training_file=Path())
    assert JobDirectory.create(directory.path, other).job().id == "ftjob-1"
    assert directory.outcome() is None
    (directory.path / "failure.partial").write_text("{")  # a crash while it was written
    assert directory.outcome() is None
    directory.finish(Failure(code="c", message="m"))
    assert directory.outcome() == Failure(code="c", message="m")
    assert "failure.partial" not in os.listdir(directory.path)

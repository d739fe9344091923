"""What a job needs at its end is looked at before it trains."""

import json
from pathlib import Path

import pytest

from training.__main__ import run
from training.directory import JobDirectory
from training.errors import InvalidTrainingData
from training.job import TrainingJob


def test_a_faulty_retention_file_ends_the_job_before_anything_is_loaded(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "."}]} for n in range(12)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "retention.jsonl").write_text('{"prompt": "a"}')
    job = TrainingJob(
        id="ftjob-1",
        base_model="b",
        base_path=tmp_path / "no model is here",
        training_file=tmp_path / "train.jsonl",
        retention_file=tmp_path / "retention.jsonl",
    )
    with pytest.raises(InvalidTrainingData, match=r'line 1: expected {"prompt": "...", "expect": "..."}') as raised:
        run(job, JobDirectory.create(tmp_path / "job", job))
    assert raised.value.code == "invalid_retention_file"

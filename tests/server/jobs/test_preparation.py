"""What a job is given to beat, and what happens where that went away."""

import pytest
from sqlalchemy.orm import Session

from server.errors import InvalidRequest
from server.state.files import FileRow
from tests.server.jobs.conftest import Parts
from training.job import Gate


@pytest.mark.parametrize(
    ("gate", "parent", "incumbent"),
    [
        (Gate(), None, None),
        (Gate(alias="ft:new"), None, None),
        (Gate(alias="ft:a"), None, "ft:tiny:o:a:v1"),
        (Gate(), "ft:tiny:o:a:v2", "ft:tiny:o:a:v2"),
        (Gate(alias="ft:a"), "ft:tiny:o:a:v2", "ft:tiny:o:a:v1"),
        (Gate(alias="ft:a"), "ft:tiny:o:a:v1", "ft:tiny:o:a:v1"),
    ],
)
def test_a_job_has_to_beat_what_its_alias_serves_or_what_it_goes_on_from(
    gate: Gate, parent: str | None, incumbent: str | None, parts: Parts
) -> None:
    job = parts.preparation.prepare(parts.queued(gate, parent)).job()
    assert job.incumbent_name == incumbent
    assert (job.incumbent is None) == (incumbent is None)
    if job.incumbent is not None:
        assert (job.incumbent / "adapter_model.safetensors").exists()
        assert (job.incumbent == job.parent) == (incumbent == parent)


def test_a_parent_that_was_removed_is_named(parts: Parts) -> None:
    row = parts.queued(parent="ft:tiny:o:a:v2")
    parts.catalog.registry.remove("ft:tiny:o:a:v2")
    with pytest.raises(InvalidRequest, match="ft:tiny:o:a:v2, which the job starts from") as refused:
        parts.preparation.prepare(row)
    assert refused.value.param == "model"


def test_a_file_that_was_deleted_is_named_and_one_whose_time_is_over_is_used(parts: Parts) -> None:
    row = parts.queued()
    with Session(parts.files._engine) as session, session.begin():
        session.get_one(FileRow, row.training_file).expires_at = 1
    assert parts.preparation.prepare(row).path.is_dir()
    parts.files.delete_expired(lambda _: False)
    with pytest.raises(InvalidRequest, match=f"{row.training_file} was deleted") as refused:
        parts.preparation.prepare(row)
    assert refused.value.param == "training_file"

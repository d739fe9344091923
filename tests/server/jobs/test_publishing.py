"""An alias goes to a result that passed its gate, and to no other."""

from tests.server.jobs.conftest import Parts
from training.job import Gate, Result, Verdict


def test_an_alias_that_was_moved_meanwhile_is_left_alone(parts: Parts) -> None:
    """The result is proven better than version 1; of version 2, which the alias serves by now, nothing is known."""
    row = parts.queued(Gate(alias="ft:a"))
    directory = parts.preparation.prepare(row)
    verdict = Verdict(passed=True, reasons=[], alias="ft:a")
    result = Result(trained_tokens=1, best_step=1, checkpoints=[], hyperparameters={}, verdict=verdict)
    registry = parts.catalog.registry
    parts.catalog.register("ft:tiny:o::r", registry.store.path(registry.get("ft:tiny:o:a:v1").digest), "o")
    parts.catalog.set_alias("ft:a", {"ft:tiny:o:a:v2": 1}, "o")
    parts.publishing.promote(row, result, directory)
    assert registry.alias("ft:a").weights == {"ft:tiny:o:a:v2": 1}
    said = directory.events()[-1]["message"]
    assert "it serves ft:tiny:o:a:v2 by now, and the job was judged against ft:tiny:o:a:v1" in said
    parts.catalog.set_alias("ft:a", {"ft:tiny:o:a:v1": 1}, "o")
    parts.publishing.promote(row, result, directory)
    assert registry.alias("ft:a").weights == {"ft:tiny:o::r": 1}


def test_a_result_that_failed_its_gate_is_kept_and_not_promoted(parts: Parts) -> None:
    row = parts.queued(Gate(alias="ft:a"))
    directory = parts.preparation.prepare(row)
    verdict = Verdict(passed=False, reasons=["no gain"], alias="ft:a")
    parts.publishing.promote(
        row, Result(trained_tokens=1, best_step=1, checkpoints=[], hyperparameters={}, verdict=verdict), directory
    )
    assert parts.catalog.registry.alias("ft:a").weights == {"ft:tiny:o:a:v1": 1}
    assert directory.events()[-1]["message"] == "ft:a stays where it is: the gate is not passed"

"""The models that a proof compares, asked one after the other: base, incumbent if there is one, and result."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from training.job import TrainingJob
from training.proof.scoring import BASE, INCUMBENT, TUNED


def arms(model: Any, job: TrainingJob) -> dict[str, AbstractContextManager[Any]]:
    """A context manager for each model, in the report's order, which returns the model to ask; each is entered once.

    Args:
        model: a PEFT model, or a `full.BaseAndTuned`; with its adapter turned off it is the base.
    """
    return {
        BASE: _base(model),
        **({INCUMBENT: _incumbent(model, job)} if job.incumbent is not None else {}),
        TUNED: nullcontext(model),
    }


@contextmanager
def _base(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model


@contextmanager
def _incumbent(model: Any, job: TrainingJob) -> Iterator[Any]:
    """The incumbent: a second adapter on the result's base if both are adapters, else loaded beside it."""
    from peft import PeftModel

    from adapters.files import full
    from training.methods.models import as_served, load_base

    assert job.incumbent is not None  # noqa: S101 (narrows the type)
    if (job.incumbent / full.WEIGHTS).exists():
        yield load_base(job.model_copy(update={"base_path": job.incumbent}), 0).to(model.device).eval()
    elif not isinstance(model, PeftModel):
        yield as_served(job, 0, job.incumbent).eval()
    else:
        (mine,) = model.active_adapters
        model.load_adapter(str(job.incumbent), INCUMBENT)
        model.set_adapter(INCUMBENT)
        try:
            yield model
        finally:
            model.set_adapter(mine)
            model.delete_adapter(INCUMBENT)

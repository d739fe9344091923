"""A job's proof as the trainer makes it: what broke is said, what was trained is kept, what served is asked."""

from pathlib import Path
from typing import Any

import pytest

from adapters.base import BaseModel
from tests.conftest import MakeAdapter
from tests.training.methods.test_supervised import description
from training import __main__ as trainer
from training.data.findings import DataReport
from training.data.reading import read
from training.directory import JobDirectory
from training.job import Result, TrainingJob
from training.methods import models
from training.methods.outcome import Trained
from training.proof import evaluate, report
from training.proof.evaluation import Evaluation
from training.proof.split import split

RESULT = Result(trained_tokens=1, best_step=1, checkpoints=[], hyperparameters={"n_epochs": 1})


@pytest.fixture
def job(tmp_path: Path, tiny: Path, tiny_base: BaseModel, make_adapter: MakeAdapter) -> TrainingJob:
    """Goes on from, and has to beat, a model of noise."""
    incumbent = make_adapter(tiny_base, seed=3, scale=0.3)
    return description(tmp_path, tiny).model_copy(update={"incumbent": incumbent, "incumbent_name": "ft:tiny:o::v1"})


def proven(job: TrainingJob, tmp_path: Path, model: Any, tokenizer: Any) -> tuple[Result, Evaluation, JobDirectory]:
    directory = JobDirectory.create(tmp_path / "job", job)
    directory.event("Validating training file")
    parts = split(read(job.training_file, "supervised"), None, job.seed)
    data = DataReport(file="train.jsonl", rows=40)
    result = trainer._prove(Trained(model, RESULT), job, directory, tokenizer, parts, data)  # pyright: ignore
    return result, Evaluation.model_validate_json(directory.evaluation.read_bytes()), directory


def test_base_incumbent_and_result_answer_and_the_gate_judges_by_the_incumbent(
    job: TrainingJob, tmp_path: Path, tiny_base: BaseModel, make_adapter: MakeAdapter, tokenizer: Any
) -> None:
    """The result is the very base here: as good as it is, and not proven to beat what it would replace."""
    from peft import PeftModel

    result_adapter = make_adapter(tiny_base, seed=4, scale=0.0)
    model = PeftModel.from_pretrained(models.load_base(job, 0), str(result_adapter)).eval()
    result, proof, directory = proven(job, tmp_path, model, tokenizer)
    assert [(arm.name, arm.model) for arm in proof.arms] == [
        ("base", "tiny"),
        ("incumbent", "ft:tiny:o::v1"),
        ("tuned", "ftjob-test"),
    ]
    assert [side.base for side in proof.sides] == [side.tuned for side in proof.sides]
    assert [side.incumbent for side in proof.sides] != [side.base for side in proof.sides], "it was asked itself"
    assert [one.against for one in proof.incumbent] == ["ft:tiny:o::v1"] * 2
    assert proof.comparisons[0].difference == 0
    assert proof.incumbent[0].difference != 0
    assert result.verdict is not None
    assert "over ft:tiny:o::v1" in result.verdict.reasons[0]
    assert model.active_adapters == ["default"]
    assert proof.summary.startswith("On 10 rows that the training never saw")
    assert proof.summary in directory.report_markdown.read_text()
    assert "ft:tiny:o::v1" in directory.report_html.read_text()
    assert "| similarity | ft:tiny:o::v1 |" in directory.report_markdown.read_text()


def test_a_proof_that_breaks_off_leaves_the_model_unproven(
    job: TrainingJob, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("no <sandbox>")

    monkeypatch.setattr(evaluate, "evaluate", breaks)
    result, proof, directory = proven(job, tmp_path, None, tokenizer)
    assert result.trained_tokens == 1, "what was trained goes on to be published"
    assert result.verdict is not None
    assert not result.verdict.passed
    assert result.verdict.reasons == ["the proof broke off: RuntimeError: no <sandbox>"]
    assert proof.error == "RuntimeError: no <sandbox>"
    assert any(
        event["level"] == "error" and "The proof broke off, the model is kept unproven" in event["message"]
        for event in directory.events()
    )
    page = directory.report_html.read_text()
    assert "is not proven: RuntimeError: no &lt;sandbox&gt;" in page


def test_a_page_that_cannot_be_written_costs_no_model(
    job: TrainingJob, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("of an axis")

    monkeypatch.setattr(evaluate, "evaluate", lambda *_: Evaluation(error="none here"))
    monkeypatch.setattr(report, "write", breaks)
    result, _, directory = proven(job, tmp_path, None, tokenizer)
    assert result.trained_tokens == 1
    assert any("The report could not be written: ZeroDivisionError" in one["message"] for one in directory.events())


def test_a_full_disk_is_no_broken_proof(
    job: TrainingJob, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise OSError("[Errno 28] No space left on device")

    monkeypatch.setattr(evaluate, "evaluate", breaks)
    with pytest.raises(OSError, match="No space left"):
        proven(job, tmp_path, None, tokenizer)

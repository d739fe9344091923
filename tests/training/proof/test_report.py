"""The page: one file that needs nothing else, escapes what it shows, and draws even a single point."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.markdown import Markdown

from tests.training.proof.test_gate import FAILURE, evaluation
from training.data.findings import DataReport
from training.data.rows import Task
from training.directory import JobDirectory, append_line
from training.job import Gate, Result, Supervised, TrainingJob
from training.proof import report
from training.proof.curves import panels
from training.proof.evaluation import Evaluation, Recall, Side, judge
from training.proof.split import Parts

EVIL = "<script>alert('x')</script>"


def side(name: str, before: float, after: float) -> Side:
    return Side(prompt=f"{name} {EVIL}", reference=EVIL, base=EVIL, tuned=EVIL, base_score=before, tuned_score=after)


def written(folder: Path, proof: Evaluation) -> tuple[str, str]:
    job = TrainingJob(
        id="ftjob-1", base_model=f"m{EVIL}", base_path=folder, training_file=folder / "rows & more.jsonl",
        method=Supervised(), seed=7, incumbent_name="ft:v1",
    )  # fmt: skip
    directory = JobDirectory.create(folder / "job", job)
    directory.event("Validating training file")
    for step in (1, 2, 3):
        append_line(directory.metrics_file, {"step": step, "train_loss": 3 / step})
    append_line(directory.metrics_file, {"step": 3, "full_valid_loss": 1.25})
    result = Result(
        trained_tokens=12_345,
        best_step=3,
        checkpoints=[],
        hyperparameters={"n_epochs": 2},
        verdict=judge(proof, Gate()),
    )
    proof.summary = proof.headline(judge(proof, Gate()))
    rows = [Task((), {}, line) for line in range(30)]
    parts = Parts[Task](rows[:18], rows[18:20], rows[20:])
    report.write(directory, job, DataReport(file="f", rows=30), proof, result, parts)  # pyright: ignore
    return directory.report_html.read_text(), directory.report_markdown.read_text()


@pytest.fixture
def proof() -> Evaluation:
    made = evaluation(tuned=0.5, incumbent=0.9, failures=[FAILURE])
    assert made.forgetting is not None
    lost = Recall(prompt="Capital of Poland?", expect="Warsaw", base="Warsaw.", knew=True, tuned=EVIL, kept=False)
    return made.model_copy(
        update={
            "sides": [side("worse", 1, 0.25), side("better", 0, 1), side("same", 1, 1)],
            "forgetting": made.forgetting.model_copy(update={"answers": [lost]}),
        }
    )


def test_the_page_is_one_file_and_escapes_everything(tmp_path: Path, proof: Evaluation) -> None:
    page, _ = written(tmp_path, proof)
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=|url\(|@import", page), "it works offline"
    assert page.count("&lt;script&gt;") >= 15


def test_the_markdown_shows_texts_as_they_stand(tmp_path: Path, proof: Evaluation) -> None:
    """A reader of Markdown leaves out tags, and ends a cell at a bar."""
    _, markdown = written(tmp_path, proof)
    printed = io.StringIO()
    Console(file=printed, width=1000).print(Markdown(markdown))
    assert printed.getvalue().count(EVIL) == 3 * 4 + 1  # three rows' four texts, and what was said of Poland


def test_page_and_markdown_open_with_the_sentence_and_show_the_same_figures(tmp_path: Path, proof: Evaluation) -> None:
    page, markdown = written(tmp_path, proof)
    for text in (page, markdown):
        said = "On 40 rows that the training never saw, the fine-tuned model is worse than ft:v1 by 0.400"
        assert said in text
        for one in (*proof.comparisons, *proof.incumbent):
            cells = one.cells()
            assert all(cells[name] in text for name in ("difference", "95 % interval", "rows", "verdict"))
        assert "failed on 3 of 40 rows" in text
        assert "18 trained on, 2 chose the checkpoint, 10 prove; drawn by seed 7" in text
        assert "12,345" in text
        assert "tuneport repeat" in text
    assert page.index("Got worse") < page.index("worse &lt;") < page.index("Got better") < page.index("better &lt;")
    assert "Capital of Poland?" in page
    assert page.count("0.900") >= 1, "the incumbent's mean"


def test_every_arm_has_its_interval_drawn(tmp_path: Path, proof: Evaluation) -> None:
    page, _ = written(tmp_path, proof)
    assert page.count('<div class="track') == 3
    (graded,) = report.graded(proof)
    assert [bar.arm for bar in graded.bars] == ["base", "incumbent", "fine-tuned"]
    assert all(0 <= bar.low <= bar.at <= bar.high <= 100 for bar in graded.bars)


def test_a_single_validation_point_is_to_be_seen_and_axes_have_round_numbers() -> None:
    metrics = [{"step": step, "train_loss": 3.3 / step} for step in range(1, 45)] + [
        {"step": 44, "full_valid_loss": 0.05}
    ]
    (panel,) = panels(metrics)
    assert [tick.label for tick in panel.y] == ["0", "1", "2", "3", "4"]
    assert [tick.label for tick in panel.x] == ["0", "20", "40", "60"]
    (point,) = panel.lines["validation loss"]
    assert point.x == pytest.approx(100 * 44 / 60, abs=0.01)
    assert point.words == "validation loss 0.0500 at step 44"
    assert panels([]) == []
    assert len(panels([{"step": 1, "train_mean_reward": 0.0}])) == 1


def test_an_unproven_model_has_a_page_too(tmp_path: Path) -> None:
    page, markdown = written(tmp_path, Evaluation(error=f"OSError: {EVIL}"))
    assert "is not proven: OSError: &lt;script&gt;" in page
    assert "Not measured" in page
    assert "Not measured" in markdown

"""Every recipe on the real model does what its card says, surely."""

import subprocess
import sys
from pathlib import Path

import pytest

from demo.recipes import RECIPES, job
from training.directory import JobDirectory
from training.job import Result
from training.proof.evaluation import Evaluation

HERE = [name for name in RECIPES if name not in ("structured-extraction", "brand-voice")]  # tests/e2e runs those


@pytest.mark.parametrize("name", HERE)
def test_a_recipe_gains_what_it_promises(name: str, smollm2: Path, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    directory = JobDirectory.create(tmp_path / "job", job(recipe, smollm2, tmp_path))
    with directory.log_file.open("wb") as log:
        subprocess.run([sys.executable, "-P", "-m", "training", str(directory.description)], stdout=log, stderr=log)
    outcome = directory.outcome()
    assert isinstance(outcome, Result), (outcome, directory.log_file.read_text()[-2000:])
    evaluation = Evaluation.model_validate_json(directory.evaluation.read_bytes())
    print(evaluation.comparisons[0].sentence())
    assert evaluation.comparisons[0].low > recipe.expected
    assert outcome.verdict
    assert outcome.verdict.passed, outcome.verdict.reasons

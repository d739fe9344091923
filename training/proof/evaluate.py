"""Base against fine-tuned on the held-out rows, and what was forgotten; every job ends with it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training import defaults
from training.data.rows import Example, Pair, Row, Task
from training.graders.default import DEFAULT_GRADERS
from training.graders.grade import grade
from training.graders.judge import Judge
from training.graders.models import Grader
from training.job import Reinforcement, Supervised, TrainingJob
from training.methods.generation import answers
from training.proof import forgetting
from training.proof.evaluation import Evaluation, Side
from training.proof.statistics import compare
from training.render import prompt_ids, render_pair, tools, turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_ROWS = 200  # judged; more would only narrow the interval
SIDES = 20  # shown side by side
MAX_ANSWER_TOKENS = 512
SHARPER = 1.25  # an answer may be so much longer than the longest reference


def evaluate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    job: TrainingJob,
    held_out: Sequence[Row],
    tell: Callable[[str], object],
) -> Evaluation:
    """Judge both models.

    Args:
        model: a PEFT model; with its adapter off it is the base.
        tell: told how far it is.
    """
    rows = held_out[:MAX_ROWS]
    tell(f"Comparing with the base on {len(rows)} held-out rows")
    pairs = [row for row in rows if isinstance(row, Pair)]
    comparisons, sides = _answered(model, tokenizer, job, rows)
    if pairs:
        base, tuned = _both(model, lambda: [_prefers(model, tokenizer, pair) for pair in pairs])
        comparisons.insert(0, compare("prefers the preferred answer", base, tuned))
    asked = forgetting.questions(job.retention_file)
    tell(f"Asking both {len(asked)} general questions: what was forgotten?")
    return Evaluation(
        comparisons=comparisons, sides=sides[:SIDES], forgetting=forgetting.measure(model, tokenizer, asked)
    )


def _answered(
    model: Any, tokenizer: "PreTrainedTokenizerBase", job: TrainingJob, rows: Sequence[Row]
) -> tuple[list[Any], list[Side]]:
    """Both models' answers, graded."""
    prompts = [prompt_ids(tokenizer, turns(row.prompt), tools(row)) for row in rows]
    limit = _limit(tokenizer, job, rows)
    base, tuned = _both(model, lambda: answers(model, tokenizer, prompts, limit))
    items = [_item(row) for row in rows]
    graders, judge = _graders(job), Judge.from_environment()
    scores = [
        [[one.score for one in grade(grader, items, texts, judge)] for texts in (base, tuned)] for grader in graders
    ]
    comparisons = [compare(grader.name, both[0], both[1]) for grader, both in zip(graders, scores, strict=True)]
    sides = [
        Side(
            prompt=row.prompt[-1].text,
            reference=row.answer,
            base=base[index],
            tuned=tuned[index],
            base_score=scores[0][0][index],
            tuned_score=scores[0][1][index],
        )
        for index, row in enumerate(rows)
    ]
    return comparisons, sides


def _graders(job: TrainingJob) -> Sequence[Grader]:
    if isinstance(job.method, Reinforcement):
        return (job.method.grader,)
    if isinstance(job.method, Supervised) and job.method.graders:
        return job.method.graders
    return DEFAULT_GRADERS


def _item(row: Row) -> dict[str, Any]:
    """What graders' templates see of a row."""
    if isinstance(row, Task):
        return row.item
    return {"reference": row.answer, "messages": turns(row.prompt)}


def _limit(tokenizer: "PreTrainedTokenizerBase", job: TrainingJob, rows: Sequence[Row]) -> int:
    if isinstance(job.method, Reinforcement):
        wanted = job.method.hyperparameters.max_answer_tokens
        return defaults.MAX_ANSWER_TOKENS if wanted == "auto" else wanted
    references = [row.answer for row in rows if isinstance(row, Example | Pair)]
    longest = max(len(ids) for ids in tokenizer(references, add_special_tokens=False).input_ids)
    return min(MAX_ANSWER_TOKENS, int(SHARPER * longest) + 8)


def _both(model: Any, ask: Callable[[], list[Any]]) -> tuple[list[Any], list[Any]]:
    with model.disable_adapter():
        base = ask()
    return base, ask()


def _prefers(model: Any, tokenizer: "PreTrainedTokenizerBase", pair: Pair) -> float:
    """1 where the preferred answer is likelier than the other, token by token, else 0."""
    import torch

    ids = render_pair(tokenizer, pair)
    likelihoods: list[float] = []
    for name in ("chosen_ids", "rejected_ids"):
        whole = torch.tensor([ids["prompt_ids"] + ids[name]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=whole).logits[0, len(ids["prompt_ids"]) - 1 : -1].float().log_softmax(-1)
        target = torch.tensor(ids[name], device=model.device)
        likelihoods.append(logits.gather(-1, target[:, None]).mean().item())
    return float(likelihoods[0] > likelihoods[1])

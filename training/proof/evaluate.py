"""Asks base, incumbent and result the held-out rows, and measures forgetting; every job ends with this."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from training.data.rows import Pair, Row, Task
from training.graders.default import DEFAULT_GRADERS
from training.graders.judge import Judge
from training.graders.models import Grader
from training.job import Reinforcement, Supervised, TrainingJob
from training.methods.generation import Answer, answers
from training.proof import forgetting
from training.proof.arms import arms
from training.proof.evaluation import Arm, Evaluation, Side
from training.proof.scoring import BASE, INCUMBENT, TUNED, Scores, score
from training.render import prompt_ids, render_pair, tools, turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = 20  # rows shown side by side in the report
# The limit for every arm, also for a base that says "Sure! Here is" before a short answer. On a CPU, where 18 answers
# of 512 tokens take as long as the training, it is GENEROUS times the longest reference, but at least MIN_ON_CPU.
MAX_ANSWER_TOKENS = 512
GENEROUS = 4
MIN_ON_CPU = 128
PREFERS = "prefers the preferred answer"


def evaluate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    job: TrainingJob,
    rows: Sequence[Row],
    tell: Callable[[str], object],
) -> Evaluation:
    """Ask, grade and compare the arms.

    Args:
        model: a PEFT model; with its adapter turned off it is the base.
        rows: used neither for training nor for choosing the checkpoint.
        tell: called with messages about the progress.
    """
    names = {BASE: job.base_model, INCUMBENT: job.incumbent_name or "", TUNED: job.id}
    lengths = [len(ids) for ids in tokenizer([row.answer for row in rows], add_special_tokens=False).input_ids]
    limit = _limit(model, job, lengths)
    prompts = [prompt_ids(tokenizer, turns(row.prompt), tools(row)) for row in rows]
    pairs = [row for row in rows if isinstance(row, Pair)]
    answered: dict[str, list[Answer]] = {}
    preferred: dict[str, list[float | None]] = {}
    for name, arm in arms(model, job).items():
        tell(f"Asking {name} {names[name]} the {len(rows)} held-out rows")
        with arm as asked:
            answered[name] = answers(asked, tokenizer, prompts, limit)
            preferred[name] = [_prefers(asked, tokenizer, pair) for pair in pairs]
    items, judge = [_item(row) for row in rows], Judge.from_environment()
    texts = {name: [one.text for one in given] for name, given in answered.items()}
    scored = [score(grader, items, texts, judge) for grader in _graders(job)]
    first = scored[0]
    if pairs:
        scored.insert(0, Scores(PREFERS, preferred))
    against_incumbent = [one.compare(INCUMBENT, names[INCUMBENT]) for one in scored if INCUMBENT in texts]
    general = forgetting.questions(job.retention_file, forgetting.ON_CPU if model.device.type == "cpu" else None)
    tell(f"Asking {len(general)} general questions: what was forgotten?")
    return Evaluation(
        grader=scored[0].grader,
        rows=len(rows),
        max_answer_tokens=limit,
        arms=[
            Arm(
                name=name,  # pyright: ignore[reportArgumentType]
                model=names[name],
                cut=sum(one.cut for one in given),
                unending=sum(one.cut and length < limit for one, length in zip(given, lengths, strict=True)),
            )
            for name, given in answered.items()
        ],
        comparisons=[one for scores in scored if (one := scores.compare(BASE, "base"))],
        incumbent=[one for one in against_incumbent if one],
        failures=[scores.failure for scores in scored if scores.failure],
        sides=_telling([_side(row, index, texts, first) for index, row in enumerate(rows)]),
        forgetting=forgetting.measure(model, tokenizer, general),
    )


def _limit(model: Any, job: TrainingJob, references: Sequence[int]) -> int:
    limit = MAX_ANSWER_TOKENS
    if model.device.type == "cpu":
        limit = min(limit, max(MIN_ON_CPU, GENEROUS * max(references)))
    if isinstance(job.method, Reinforcement) and job.method.hyperparameters.max_answer_tokens != "auto":
        limit = max(limit, job.method.hyperparameters.max_answer_tokens)
    return limit


def _graders(job: TrainingJob) -> Sequence[Grader]:
    if isinstance(job.method, Reinforcement):
        return (job.method.grader,)
    if isinstance(job.method, Supervised) and job.method.graders:
        return job.method.graders
    return DEFAULT_GRADERS


def _item(row: Row) -> dict[str, Any]:
    """The `item` of a row for graders' templates."""
    if isinstance(row, Task):
        return row.item
    return {"reference": row.answer, "messages": turns(row.prompt)}


def _side(row: Row, index: int, texts: dict[str, list[str]], scores: Scores) -> Side:
    incumbent = texts.get(INCUMBENT)
    return Side(
        prompt=row.prompt[-1].text,
        reference=row.answer,
        base=texts[BASE][index],
        tuned=texts[TUNED][index],
        base_score=scores.by_arm[BASE][index],
        tuned_score=scores.by_arm[TUNED][index],
        incumbent=incumbent[index] if incumbent else None,
        incumbent_score=scores.by_arm[INCUMBENT][index] if incumbent else None,
    )


def _telling(sides: Sequence[Side]) -> list[Side]:
    """The rows to show: at most half of SIDES that lost most, then those that gained most, then others."""
    by_gain = sorted(sides, key=lambda side: side.gain or 0.0)
    worse = [side for side in by_gain if (side.gain or 0.0) < 0][: SIDES // 2]
    better = [side for side in reversed(by_gain) if (side.gain or 0.0) > 0][: SIDES - len(worse)]
    others = [side for side in sides if not side.gain]
    return [*worse, *better, *others][:SIDES]


def _prefers(model: Any, tokenizer: "PreTrainedTokenizerBase", pair: Pair) -> float:
    """1 if the preferred answer's mean log-probability per token is higher than the other's, else 0."""
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

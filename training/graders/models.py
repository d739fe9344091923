"""Descriptions of graders: OpenAI's JSON, as `method.reinforcement.grader` and `alpha/graders` take it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from training.graders.formula import check_formula
from training.graders.templates import check_template
from training.wire import Description, Text

MAX_SOURCE_BYTES = 256_000  # OpenAI's limit on a Python grader

MAX_GRADERS = 16  # in a multi grader; OpenAI documents no limit
MAX_JUDGE_MESSAGES = 32
MAX_LABELS = 64

Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Grader(Description):
    model_config = ConfigDict(frozen=True)

    name: Name

    @model_validator(mode="after")
    def _templates_are_right(self) -> "_Grader":
        for field in ("input", "reference"):
            template = getattr(self, field, None)
            if isinstance(template, str):
                check_template(template)
        return self


class StringCheck(_Grader):
    """1 if `input` compares to `reference`, else 0. `like` means "contains", `ilike` the same without case."""

    type: Literal["string_check"]
    input: Text
    reference: Text
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarity(_Grader):
    """How similar `input` is to `reference`, 0 to 1. `cosine` is missing, as it needs an embedding model."""

    type: Literal["text_similarity"]
    input: Text
    reference: Text
    evaluation_metric: Literal[
        "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ]


class Python(_Grader):
    """`source` defines `grade(sample: dict, item: dict) -> float`; compiled and run in a sandbox, see `sandbox.py`."""

    type: Literal["python"]
    source: Annotated[str, Field(max_length=MAX_SOURCE_BYTES)]
    image_tag: Name | None = None

    @model_validator(mode="after")
    def _defines_grade(self) -> "Python":
        if "def grade" not in self.source:
            raise ValueError("source defines no function `grade(sample, item)`")
        return self


class JudgeMessage(Description):
    """One message for the judge; its content is a template."""

    model_config = ConfigDict(frozen=True)

    role: Literal["user", "assistant", "system", "developer"]
    content: Text
    type: Literal["message"] = "message"

    @model_validator(mode="before")
    @classmethod
    def _text_parts(cls, value: Any) -> Any:
        """Join content parts of text; other parts, such as images, are then refused by pydantic."""
        content = value.get("content") if isinstance(value, dict) else None
        parts = content if isinstance(content, list) else [content]
        texts: list[Any] = [part.get("text") if isinstance(part, dict) else part for part in parts]
        if isinstance(content, dict | list) and texts and all(isinstance(text, str) for text in texts):
            return {**value, "content": "".join(texts)}
        return value


class JudgeSampling(Description):
    """How the judge's answer is sampled; all fields are sent to the judge."""

    model_config = ConfigDict(frozen=True)

    temperature: FiniteFloat | None = None
    top_p: FiniteFloat | None = None
    seed: int | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class _Judged(_Grader):
    """A grader that asks a model about `input`; see `judge.py`."""

    model: Name
    input: Annotated[list[JudgeMessage], Field(min_length=1, max_length=MAX_JUDGE_MESSAGES)]

    @model_validator(mode="after")
    def _inputs_are_right(self) -> "_Judged":
        for message in self.input:
            check_template(message.content)
        return self


class ScoreModel(_Judged):
    """The model answers with a number within `range`."""

    type: Literal["score_model"]
    range: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] = Field(default=[0.0, 1.0])
    sampling_params: JudgeSampling | None = None

    @model_validator(mode="after")
    def _range_is_right(self) -> "ScoreModel":
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range is {self.range}; expected [lowest, highest]")
        return self


class LabelModel(_Judged):
    """The model answers with one of `labels`: 1 if it is among `passing_labels`, else 0."""

    type: Literal["label_model"]
    labels: Annotated[list[Name], Field(min_length=1, max_length=MAX_LABELS)]
    passing_labels: Annotated[list[Name], Field(min_length=1, max_length=MAX_LABELS)]

    @model_validator(mode="after")
    def _labels_are_right(self) -> "LabelModel":
        if strange := [one for one in self.passing_labels if one not in self.labels]:
            raise ValueError(f"passing_labels has {strange[0]!r}, which is not among labels")
        return self


Single = Annotated[StringCheck | TextSimilarity | Python | ScoreModel | LabelModel, Field(discriminator="type")]


class Multi(_Grader):
    """Several graders by name, and a formula over the names, such as `(format + 2 * content) / 3`."""

    type: Literal["multi"]
    graders: Annotated[dict[Name, Single], Field(min_length=1, max_length=MAX_GRADERS)]
    calculate_output: str

    @model_validator(mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        """Accept `graders` as one grader (OpenAI's SDK) and as a dict of graders (OpenAI's guide)."""
        graders = value.get("graders") if isinstance(value, dict) else None
        if isinstance(graders, dict) and isinstance(graders.get("type"), str):
            return {**value, "graders": {graders.get("name"): graders}}
        return value

    @model_validator(mode="after")
    def _formula_is_right(self) -> "Multi":
        check_formula(self.calculate_output, self.graders)
        return self


Grader = Annotated[StringCheck | TextSimilarity | Python | ScoreModel | LabelModel | Multi, Field(discriminator="type")]


def _not_a_label(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "label_model":
        raise ValueError(
            "OpenAI takes a label_model here as a part of a multi grader only; send "
            '{"type": "multi", "name": ..., "graders": {"label": {"type": "label_model", ...}}, '
            '"calculate_output": "label"}'
        )
    return value


# Graders of reinforcement jobs and `alpha/graders`, as in OpenAI's types.
Reward = Annotated[
    Annotated[StringCheck | TextSimilarity | Python | ScoreModel | Multi, Field(discriminator="type")],
    BeforeValidator(_not_a_label),
]

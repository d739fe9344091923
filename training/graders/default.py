"""The graders for jobs that name none."""

from training.graders.models import Grader, StringCheck, TextSimilarity

# How similar the answer is to the held-out one, and whether it is exactly equal.
DEFAULT_GRADERS: tuple[Grader, ...] = (
    TextSimilarity(
        type="text_similarity",
        name="similarity",
        input="{{sample.output_text}}",
        reference="{{item.reference}}",
        evaluation_metric="fuzzy_match",
    ),
    StringCheck(
        type="string_check",
        name="exact match",
        input="{{sample.output_text}}",
        reference="{{item.reference}}",
        operation="eq",
    ),
)

"""What is asked about forgetting was never rehearsed, or the figure would flatter."""

import re

from training.methods import replay
from training.proof import forgetting

EMPTY = set(re.findall(r"\w+", "a an are do does for how in is many of on the there we what where which who why"))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - EMPTY


def test_no_question_about_forgetting_is_among_the_replays_prompts() -> None:
    prompts = [words(prompt) for prompt in replay.PROMPTS.read_text().splitlines()]
    assert len(prompts) >= 60
    for question in forgetting.questions(None):
        rehearsed = [prompt for prompt in prompts if words(question.prompt) <= prompt]
        assert not rehearsed, question.prompt

"""`/v1/completions`: what evaluation harnesses and older programs call."""

from typing import Any

import openai
import pytest

BASE = "SmolLM2-135M-Instruct"
PROMPT = "The capital of France is"


def test_a_text_goes_on_streamed_or_not(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=BASE, prompt=PROMPT, temperature=0, max_tokens=6)
    assert whole.choices[0].text.startswith(" Paris")
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 6)
    stream = client.completions.create(
        model=BASE, prompt=PROMPT, temperature=0, max_tokens=6, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "length"


def test_prompts_in_all_four_forms(client: openai.OpenAI) -> None:
    ids = [504, 3575, 282, 4649, 314]
    several = client.completions.create(model=BASE, prompt=[PROMPT, "One, two,"], temperature=0, max_tokens=4, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text != several.choices[2].text
    of_ids = client.completions.create(model=BASE, prompt=ids, temperature=0, max_tokens=4)
    assert of_ids.choices[0].text == several.choices[0].text
    of_lists = client.completions.create(model=BASE, prompt=[ids, ids], temperature=0, max_tokens=4)
    assert [choice.text for choice in of_lists.choices] == [of_ids.choices[0].text] * 2


def test_echo_and_logprobs_score_a_text(client: openai.OpenAI) -> None:
    scored = client.completions.create(model=BASE, prompt=PROMPT, echo=True, max_tokens=0, logprobs=2)
    choice = scored.choices[0]
    assert choice.text == PROMPT
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or ()) == PROMPT
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    assert choice.logprobs.text_offset == [0, 3, 11, 14, 21]
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0
    further = client.completions.create(model=BASE, prompt=PROMPT, echo=True, max_tokens=3, temperature=0, logprobs=1)
    assert further.choices[0].text.startswith(PROMPT + " Paris")
    assert further.choices[0].logprobs is not None
    assert (further.choices[0].logprobs.tokens or [])[5] == " Paris"


@pytest.mark.parametrize("stream", [False, True])
def test_halves_of_characters_that_the_text_leaves_out_stand_within_it(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"model": BASE, "prompt": "Emoji: ", "max_tokens": 6, "temperature": 0, "logprobs": 0}
    answer: Any = client.completions.create(**asked, logit_bias={"10813": 50}, stream=stream)  # the fox's first half
    choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
    offsets = [offset for choice in choices for offset in (choice.logprobs.text_offset if choice.logprobs else ())]
    assert len(offsets) == 6
    assert offsets == sorted(offsets)
    assert offsets[-1] <= len("Emoji: ") + sum(len(choice.text) for choice in choices)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [999_999]}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": "word " * 20_000}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(change: dict[str, object], param: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(**{"model": BASE, "prompt": PROMPT, "max_tokens": 4, **change})  # pyright: ignore
    assert raised.value.param == param

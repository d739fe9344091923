from typing import Any

import pytest

from adapters.template import TemplateError, encode, render

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def test_developer_is_rendered_as_system(tokenizer: Any) -> None:
    system, developer = (
        render(tokenizer, [{"role": role, "content": "Be brief."}, *MESSAGES], generation_prompt=True)
        for role in ("system", "developer")
    )
    assert system == developer


def test_a_template_of_the_adapters_own_wins(tokenizer: Any) -> None:
    text = render(tokenizer, MESSAGES, template="{{ messages[0]['content'] }}!", generation_prompt=True)
    assert text == "What is the capital of France?!"


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% for", "{{ messages.__class__.__mro__ }}"])
def test_what_the_template_cannot_do_is_a_template_error(template: str, tokenizer: Any) -> None:
    with pytest.raises(TemplateError):
        render(tokenizer, MESSAGES, template=template, generation_prompt=True)


def test_smollm2s_ids(tokenizer: Any) -> None:
    """Ids of the published tokenizer: digits one by one, spaces and newlines as it has them."""
    ids = encode(tokenizer, render(tokenizer, MESSAGES, generation_prompt=True))
    assert ids[:17] == [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407]
    assert ids[17:24] == [19712, 8182, 2, 198, 1, 4093, 198]
    assert ids[24:] == [1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
    assert encode(tokenizer, "12345") == [33, 34, 35, 36, 37]
    assert encode(tokenizer, "a\n\n\nb  12") == [81, 1116, 198, 82, 256, 33, 34]
    text = "Order 4711:\n\n  2 lamps,\t3.50 each — naïve?\n"
    assert tokenizer.decode(encode(tokenizer, text)) == text

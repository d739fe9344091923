"""Where an assistant's turn ends: the token that a chat template writes behind an answer, beside the end of a text.

They differ in most families (`<end_of_turn>` in Gemma, where a text ends with `<eos>`), and a model that was taught
the one and is stopped by the other answers on and on.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.chat import template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "Yes, it is."  # whose end is looked at


def ids(tokenizer: "PreTrainedTokenizerBase", source: str | None = None, others: Iterable[int] = ()) -> tuple[int, ...]:
    """Every token that ends an answer, in order: the template's, the tokenizer's end of a text, and others.

    Args:
        source: Jinja source from an adapter's manifest; None: the tokenizer's own.
        others: what manifest and base name; ids that the tokenizer does not have are left out.
    """
    last: Any = tokenizer.eos_token_id
    found = {of_turn(tokenizer, source), last, *others}
    return tuple(sorted(one for one in found if one is not None and one < len(tokenizer)))


def of_turn(tokenizer: "PreTrainedTokenizerBase", source: str | None = None) -> int | None:
    """The first mark that the template writes behind an answer; None: it writes none, or there is no template."""
    try:
        return _of_turn(tokenizer, tokenizer.get_chat_template(source))
    except ValueError:
        return None


@lru_cache(maxsize=32)
def _of_turn(tokenizer: "PreTrainedTokenizerBase", source: str) -> int | None:
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": ANSWER}]
    text = template.render(tokenizer, turns, template=source, generation_prompt=False)
    behind = template.encode(tokenizer, text.rpartition(ANSWER)[2])
    added: Any = tokenizer.added_tokens_decoder  # whitespace among them is no mark: GPT-NeoX has runs of spaces there
    marks = {one for one, token in added.items() if token.content.strip()} | set(tokenizer.all_special_ids)
    return next((one for one in behind if one in marks), None)


def of_base(folder: Path) -> tuple[int, ...]:
    """What a model's own files say: `eos_token_id`, one or several, of generation_config.json or config.json."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_bytes()).get("eos_token_id")
            if said is not None:
                return tuple(said) if isinstance(said, list) else (said,)
    return ()

"""Which tokens end an assistant's turn: the one that the chat template writes after an answer, and the end of a text.

The two differ in most families (Gemma: `<end_of_turn>` and `<eos>`). A model that was trained with one and is stopped
only by the other never stops.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.chat import template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "Yes, it is."  # an example, to see what a template writes after an answer


def ids(tokenizer: "PreTrainedTokenizerBase", source: str | None = None, others: Iterable[int] = ()) -> tuple[int, ...]:
    """All tokens that end an answer, sorted: the template's, the tokenizer's end of a text, and `others`.

    Args:
        source: Jinja source from an adapter's manifest; None: the tokenizer's own.
        others: tokens from the manifest and the base; ids that the tokenizer does not have are left out.
    """
    last: Any = tokenizer.eos_token_id
    found = {of_turn(tokenizer, source), last, *others}
    return tuple(sorted(one for one in found if one is not None and one < len(tokenizer)))


def of_turn(tokenizer: "PreTrainedTokenizerBase", source: str | None = None) -> int | None:
    """The first mark that the template writes after an answer; None: it writes none, or there is no template."""
    try:
        return _of_turn(tokenizer, tokenizer.get_chat_template(source))
    except ValueError:
        return None


@lru_cache(maxsize=32)
def _of_turn(tokenizer: "PreTrainedTokenizerBase", source: str) -> int | None:
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": ANSWER}]
    text = template.render(tokenizer, turns, template=source, generation_prompt=False)
    behind = template.encode(tokenizer, text.rpartition(ANSWER)[2])
    added: Any = tokenizer.added_tokens_decoder  # GPT-NeoX has runs of spaces there, which are no marks
    marks = {one for one, token in added.items() if token.content.strip()} | set(tokenizer.all_special_ids)
    return next((one for one in behind if one in marks), None)


def of_base(folder: Path) -> tuple[int, ...]:
    """The end tokens by a model's own files: `eos_token_id` of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_bytes()).get("eos_token_id")
            if said is not None:
                return tuple(said) if isinstance(said, list) else (said,)
    return ()

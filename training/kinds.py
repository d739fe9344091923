"""The kinds of training, by OpenAI's names; a separate module, so that the command line imports no pydantic."""

from typing import Literal, get_args

Kind = Literal["supervised", "dpo", "reinforcement"]
KINDS: tuple[Kind, ...] = get_args(Kind)

"""The kinds of training, by OpenAI's names; apart, for the command line must not wait for pydantic."""

from typing import Literal, get_args

Kind = Literal["supervised", "dpo", "reinforcement"]
KINDS: tuple[Kind, ...] = get_args(Kind)

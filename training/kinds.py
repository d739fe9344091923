"""The kinds of training, by OpenAI's names; apart, for the command line must not wait for pydantic."""

from typing import Literal

Kind = Literal["supervised", "dpo", "reinforcement"]

"""Which layers a config means, at which rank and scale: PEFT's own rules (peft 0.21, `check_target_module_exists` in
tuners_utils.py, `get_pattern_key` in other.py, `_create_and_replace` in lora/model.py), over the names of the base.

The engine finds ranks and scales by the same patterns again (vLLM's PEFTHelper) and looks at tensors only. A config
that means other layers or ranks than the file holds would be computed with the wrong scale, or with a part missing.

A pattern is somebody's regular expression, and a hostile one takes for ever. `re` knows no limit, so those with more
than letters are tried with the module `regex` first, which does, and which the engine will use.
"""

import math
import re
import time
from collections.abc import Iterable
from typing import Any, TypeVar

import regex

from adapters.errors import InvalidAdapter
from adapters.files.config import FILENAME, LARGEST_SCALE, Config

ALL_LINEAR = "all-linear"
MATCH_SECONDS = 1.0  # for all patterns of a config; those of real ones take a hundredth

_NUMBERED = re.compile(r"\.\d+\.")  # a layer of a block; embeddings and output layers stand outside of blocks
_SIMPLE = re.compile(r"[\w.-]*")
_NOT_RE = re.compile(r"\{(?![\d,])|\[\[|--|&&|\|\||~~")  # fuzzy matches, classes and sets: `regex` reads them otherwise
_PATTERN_LENGTH = 10_000

Number = TypeVar("Number", int, float)


class Targets:
    """A config read as PEFT reads it. Every method raises InvalidAdapter where a pattern is wrong or takes too long."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._targeted, self._excluded = map(_as_set, (config.target_modules, config.exclude_modules))
        self._left_seconds = MATCH_SECONDS
        self._compiled: dict[str, Any] = {}

    def among(self, modules: Iterable[str]) -> set[str]:
        """Those of `modules` (as the base's files name them, `model.layers.0.mlp.up_proj`) that get an adapter."""
        return {module for module in modules if self._targets(module)}

    def rank(self, module: str) -> tuple[int, str]:
        """The module's rank, and the config's key that says so."""
        return self._by_pattern("rank_pattern", self._config.rank_pattern, module) or (self._config.r, "r")

    def scale(self, module: str) -> float:
        """By what the product of B and A is multiplied.

        Raises:
            InvalidAdapter: also where it is more than the engine can hold.
        """
        rank, _ = self.rank(module)
        alpha, key = self._by_pattern("alpha_pattern", self._config.alpha_pattern, module) or (
            self._config.lora_alpha,
            "lora_alpha",
        )
        scale = alpha / (math.sqrt(rank) if self._config.use_rslora else rank)
        if not abs(scale) <= LARGEST_SCALE:
            raise InvalidAdapter(
                f"{FILENAME}.{key}",
                f"{alpha} is a scale of {scale:g} at rank {rank}; at most {LARGEST_SCALE} is served",
            )
        return scale

    def check_patterns(self) -> None:
        """Look at every pattern, also at those that match nothing here: the engine compiles them all."""
        for field, keys in (("rank_pattern", self._config.rank_pattern), ("alpha_pattern", self._config.alpha_pattern)):
            for key in keys:
                self._match(f"{field}.{key}", rf"(.*\.)?({key})$", "", key)

    def _targets(self, module: str) -> bool:
        if self._is_named("exclude_modules", self._excluded, module):
            return False
        if isinstance(self._targeted, str) and self._targeted.lower() == ALL_LINEAR:
            return _NUMBERED.search(f".{module}.") is not None
        if not self._is_named("target_modules", self._targeted, module):
            return False
        wanted = self._config.layers_to_transform
        if isinstance(self._targeted, str) or module in self._targeted or wanted is None or wanted == []:
            return True
        return self._layer(module) in ([wanted] if isinstance(wanted, int) else wanted)

    def _is_named(self, field: str, wanted: frozenset[str] | str, module: str) -> bool:
        """By a list: the name, or its end after a dot. By a string: a regular expression for the whole name."""
        if isinstance(wanted, str):
            return bool(wanted) and self._match(field, wanted, module, wanted, whole=True) is not None
        parts = module.split(".")
        return any(".".join(parts[first:]) in wanted for first in range(len(parts)))

    def _layer(self, module: str) -> int | None:
        """The number of the block that the module is in."""
        patterns = self._config.layers_pattern
        if not patterns:
            found = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", module)
            return int(found["idx"]) if found else None
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            whole = rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."
            if found := self._match("layers_pattern", whole, module, pattern):
                return int(found["idx"])
        return None

    def _by_pattern(self, field: str, patterns: dict[str, Number], module: str) -> tuple[Number, str] | None:
        """The value of the first key that is the end of the module's name, from a dot on."""
        for key, value in patterns.items():
            if self._match(f"{field}.{key}", rf"(.*\.)?({key})$", module, key):
                return value, f"{field}.{key}"
        return None

    def _match(self, field: str, pattern: str, text: str, written: str, *, whole: bool = False) -> Any:
        """`re.match`, or `re.fullmatch`, within what is left of the time.

        Args:
            written: the part of `pattern` that stands in the config.
        """
        compiled = self._compiled.get(pattern)
        if compiled is None:
            compiled = self._compiled[pattern] = _compiled(f"{FILENAME}.{field}", pattern, written)
        match = compiled.fullmatch if whole else compiled.match
        if isinstance(compiled, re.Pattern):
            return match(text)
        began = time.monotonic()
        try:
            return match(text, timeout=max(self._left_seconds, 1e-3), concurrent=True)
        except TimeoutError as error:
            raise InvalidAdapter(
                f"{FILENAME}.{field}", f"{written!r} takes more than {MATCH_SECONDS:g} s to match; simplify it"
            ) from error
        finally:
            self._left_seconds -= time.monotonic() - began


def _as_set(names: list[str] | str) -> frozenset[str] | str:
    return names if isinstance(names, str) else frozenset(names)


def _compiled(place: str, pattern: str, written: str) -> Any:
    """Of `re` where nothing but letters is in it, which cannot take long; of `regex` otherwise."""
    if _SIMPLE.fullmatch(written):
        return re.compile(pattern)
    if len(written) > _PATTERN_LENGTH:
        raise InvalidAdapter(place, f"has {len(written)} characters; at most {_PATTERN_LENGTH} make a pattern")
    try:
        re.compile(pattern)
        if found := _NOT_RE.search(written):
            raise InvalidAdapter(place, f"{written!r} has {found[0]!r}, which engines read differently; escape it")
        return regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise InvalidAdapter(place, f"{written!r} is no regular expression: {error}") from error

"""Which layers a config means, at which rank and scale: PEFT's own rules (peft 0.21, `check_target_module_exists` in
tuners_utils.py, `get_pattern_key` in other.py, `_create_and_replace` in lora/model.py), over the names of the base.

The engine (vLLM's PEFTHelper) takes the scales from the config and the layers from the tensors. If the two disagree, an
adapter is computed with a wrong scale or with layers missing.

A pattern is a regular expression by an unknown author, and a hostile one takes for ever. `re` has no time limit, so all
patterns but plain names are matched by the module `regex`, which has one and which the engine uses too.
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
MATCH_SECONDS = 1.0  # for all patterns of a config; real ones take a hundredth of that

_NUMBERED = re.compile(r"\.\d+\.")  # a layer within a block: embeddings and output layers have no number
_SIMPLE = re.compile(r"[\w.-]*")
_NOT_RE = re.compile(r"\{(?![\d,])|\[\[|--|&&|\|\||~~")  # fuzzy matches, classes, sets: `regex` reads them differently
_PATTERN_LENGTH = 10_000

Number = TypeVar("Number", int, float)


class Targets:
    """A config as PEFT understands it. Every method raises InvalidAdapter if a pattern is wrong or takes too long."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._targeted, self._excluded = map(_as_set, (config.target_modules, config.exclude_modules))
        self._left_seconds = MATCH_SECONDS
        self._compiled: dict[str, Any] = {}

    def among(self, modules: Iterable[str]) -> set[str]:
        """The `modules` that get an adapter, named as in the base's files (`model.layers.0.mlp.up_proj`)."""
        return {module for module in modules if self._targets(module)}

    def rank(self, module: str) -> tuple[int, str]:
        """The module's rank, and the config's key that says so."""
        return self._by_pattern("rank_pattern", self._config.rank_pattern, module) or (self._config.r, "r")

    def scale(self, module: str) -> float:
        """The factor of the product of B and A.

        Raises:
            InvalidAdapter: also if the factor is larger than the engine can hold.
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
        """Check every pattern, also those that match no layer: the engine compiles them all."""
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
        """Whether `wanted` means the module: a list by its name or last parts, a string as a regular expression."""
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
        """The value of the first key that matches the last parts of the module's name, and that key's place."""
        for key, value in patterns.items():
            if self._match(f"{field}.{key}", rf"(.*\.)?({key})$", module, key):
                return value, f"{field}.{key}"
        return None

    def _match(self, field: str, pattern: str, text: str, written: str, *, whole: bool = False) -> Any:
        """`re.match`, or `re.fullmatch` if `whole`, within the time left of MATCH_SECONDS.

        Args:
            written: the part of `pattern` that comes from the config.
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
    """The pattern compiled by `re` if it is a plain name, which cannot take long; else by `regex`."""
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

"""Answers in another language than the rest, by py3langid (97 languages, 5 MB, no download)."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

from training.data.findings import Finding, found
from training.data.rows import Row

MIN_LETTERS = 60  # in shorter texts, the language is uncertain
MAX_ROWS = 5_000  # a random sample of rows is examined, 0.2 ms each
MAIN = 0.8  # from this share on, a language is the file's main one
RARE = 0.05  # below this share, another language is an outlier
_SEED = 0


class Languages:
    """Rows in a language that few other rows have."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._sample: list[tuple[int, str]] = []
        self._seen = 0
        self._dice = random.Random(_SEED)

    def add(self, row: Row) -> None:
        """See a row; reservoir sampling keeps `MAX_ROWS` of them."""
        text = row.answer or row.text
        if sum(map(str.isalpha, text[: 4 * MIN_LETTERS])) < MIN_LETTERS or text.lstrip()[:1] in "{[<":  # code, JSON
            return
        self._seen += 1
        if len(self._sample) < MAX_ROWS:
            self._sample.append((row.line, text[:500]))
        elif (place := self._dice.randrange(self._seen)) < MAX_ROWS:
            self._sample[place] = (row.line, text[:500])

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        if not self._sample:
            return
        from py3langid.langid import classify

        lines: defaultdict[str, list[int]] = defaultdict(list)
        for line, text in sorted(self._sample):
            lines[classify(text)[0]].append(line)
        counts = Counter({language: len(where) for language, where in lines.items()})
        main, count = counts.most_common(1)[0]
        if count < MAIN * len(self._sample):
            return
        for language, where in lines.items():
            if language != main and len(where) <= RARE * len(self._sample):
                yield from found(
                    "language_outliers",
                    "warning",
                    where,
                    f"{len(where)} of {len(self._sample)} rows looked at are in {language!r}, most are in {main!r}",
                )

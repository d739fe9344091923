"""Text similarities between 0 and 1, each by the usual library."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from training.errors import TrainingError

MAX_CHARACTERS = 1_000_000  # of both texts; takes 0.2 s
MAX_FUZZY_PAIRS = 4_000_000_000  # pairs of characters; takes 0.2 s
MAX_METEOR_PAIRS = 4_000_000  # pairs of words; takes 1 s


class TooLong(TrainingError, ValueError):
    """The texts are too long for the metric."""


class _NoSynonyms:
    """Replaces WordNet, whose data would be a download, in METEOR: only exact words and stems match."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def similarity(metric: str, text: str, reference: str) -> float:
    """How similar `text` is to `reference`.

    Args:
        metric: fuzzy_match (rapidfuzz's ratio), bleu (sacrebleu, a sentence), gleu and meteor (NLTK; words split at
            white space, METEOR without synonyms), rouge_1 to rouge_5 and rouge_l (rouge-score's F1).

    Raises:
        TooLong: the texts are too long for the metric; the time of fuzzy_match and METEOR is their lengths' product.
    """
    if len(text) + len(reference) > MAX_CHARACTERS:
        raise TooLong(f"{metric} compares {len(text) + len(reference)} characters; at most {MAX_CHARACTERS} are taken")
    if not text.strip() or not reference.strip():
        return float(text.strip() == reference.strip())
    return _METRICS[metric](text, reference)


def _fuzzy_match(text: str, reference: str) -> float:
    from rapidfuzz import fuzz

    if len(text) * len(reference) > MAX_FUZZY_PAIRS:
        raise TooLong(
            f"fuzzy_match compares {len(text)} with {len(reference)} characters; their product is at most "
            f"{MAX_FUZZY_PAIRS}, take rouge_l for such texts"
        )
    return fuzz.ratio(text, reference) / 100


def _bleu(text: str, reference: str) -> float:
    import sacrebleu

    return min(1.0, sacrebleu.sentence_bleu(text, [reference]).score / 100)  # its best score is 100.00000000000004


def _gleu(text: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu

    return sentence_gleu([reference.split()], text.split())


def _meteor(text: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    words, wanted = text.split(), reference.split()
    if len(words) * len(wanted) > MAX_METEOR_PAIRS:
        raise TooLong(
            f"meteor compares {len(words)} with {len(wanted)} words; their product is at most {MAX_METEOR_PAIRS}, take "
            "rouge_l or fuzzy_match for such texts"
        )
    wordnet: Any = _NoSynonyms()
    return single_meteor_score(wanted, words, wordnet=wordnet)


def _rouge_n(kind: str, text: str, reference: str) -> float:
    return float(_rouge_scorer(kind).score(reference, text)[kind].fmeasure)


def _rouge_l(text: str, reference: str) -> float:
    """rouge-score's F1 over the longest common subsequence, which rapidfuzz finds a thousand times faster."""
    from rapidfuzz.distance import LCSseq
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=False)
    words, wanted = tokenizer.tokenize(text), tokenizer.tokenize(reference)
    if not words or not wanted:
        return 0.0
    return 2 * LCSseq.similarity(words, wanted) / (len(words) + len(wanted))


@cache
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind])


_METRICS: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": _fuzzy_match,
    "bleu": _bleu,
    "gleu": _gleu,
    "meteor": _meteor,
    "rouge_l": _rouge_l,
    **{f"rouge_{n}": partial(_rouge_n, f"rouge{n}") for n in range(1, 6)},
}

"""Text similarities between 0 and 1, each by the library its field uses."""

from collections.abc import Callable
from functools import cache
from typing import Any


class _NoSynonyms:
    """METEOR's third stage asks WordNet, whose data would be a download: exact words and stems count here."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def similarity(metric: str, text: str, reference: str) -> float:
    """How near `text` is to `reference`.

    Args:
        metric: fuzzy_match (rapidfuzz's ratio), bleu (sacrebleu, a sentence), gleu and meteor (NLTK; words split at
            white space, METEOR without synonyms), rouge_1 to rouge_5 and rouge_l (rouge-score's F1).
    """
    if not text.strip() or not reference.strip():
        return float(text.strip() == reference.strip())
    return _METRICS.get(metric, _rouge(metric))(text, reference)


def _fuzzy_match(text: str, reference: str) -> float:
    from rapidfuzz import fuzz

    return fuzz.ratio(text, reference) / 100


def _bleu(text: str, reference: str) -> float:
    import sacrebleu

    return min(1.0, sacrebleu.sentence_bleu(text, [reference]).score / 100)  # its best score is 100.00000000000004


def _gleu(text: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu

    return sentence_gleu([reference.split()], text.split())


def _meteor(text: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    wordnet: Any = _NoSynonyms()
    return single_meteor_score(reference.split(), text.split(), wordnet=wordnet)


def _rouge(metric: str) -> Callable[[str, str], float]:
    def score(text: str, reference: str) -> float:
        kind = "rougeL" if metric == "rouge_l" else metric.replace("_", "")
        return float(_rouge_scorer(kind).score(reference, text)[kind].fmeasure)

    return score


@cache
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind])


_METRICS = {"fuzzy_match": _fuzzy_match, "bleu": _bleu, "gleu": _gleu, "meteor": _meteor}

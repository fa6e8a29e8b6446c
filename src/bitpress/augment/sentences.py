"""TinyBERT's replacement of words (Jiao et al. 2020, arXiv 1909.10351, algorithm 1, as its release has it).

For every word that may be replaced there are candidates, found once on the sentence as it is. A variant of the sentence
replaces each of these words with a fixed probability by one of its candidates, drawn evenly. Variants that came up
before are dropped, so a sentence may have fewer than was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitpress.errors import DataError

# Function words of English, whose replacement changes grammar rather than meaning.
_ENGLISH = """
a about above after again against all am an and any are aren as at be because been before being below between both
but by can cannot could couldn d did didn do does doesn doing don down during each few for from further had hadn has
hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself just let ll m ma
me mightn more most mustn my myself needn no nor not now o of off on once only or other ought our ours ourselves out
over own re s same shan she should shouldn so some such t than that the their theirs them themselves then there these
they this those through to too under until up ve very was wasn we were weren what when where which while who whom why
will with won would wouldn y you your yours yourself yourselves
"""
ENGLISH = frozenset(_ENGLISH.split())


@dataclass(frozen=True)
class Variation:
    """How much is replaced: ``copies`` attempts a sentence, each word with ``probability``; the paper's numbers."""

    copies: int = 20
    probability: float = 0.4

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise DataError(f"copies is {self.copies}; allowed: 0 or more")
        if not 0 <= self.probability <= 1:
            raise DataError(f"probability is {self.probability}; allowed: 0 to 1")


@dataclass(frozen=True)
class Sentence:
    """A text as its words, and for some of them, by position, what may stand there instead."""

    words: tuple[str, ...]
    candidates: dict[int, tuple[str, ...]]


def stop_words(name: str | Path) -> frozenset[str]:
    """Words that are never replaced: "english", "none", or a file with one a line.

    Raises:
        DataError: there is no such file.
    """
    if str(name) == "english":
        return ENGLISH
    if str(name) == "none":
        return frozenset()
    try:
        return frozenset(Path(name).read_text(encoding="utf-8").lower().split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"stop words are 'english', 'none' or a text file with one a line ({error})", name) from None


def replaceable(words: Sequence[str], stop: frozenset[str]) -> list[int]:
    """Positions of the words that may be replaced: letters only, of any script, and no stop words."""
    return [i for i, word in enumerate(words) if word.isalpha() and word.lower() not in stop]


def variants(sentence: Sentence, variation: Variation, rng: np.random.Generator) -> list[str]:
    """Different sentences made of this one, itself not among them: at most ``variation.copies``."""
    found: dict[str, None] = {" ".join(sentence.words): None}
    for _ in range(variation.copies):
        words = list(sentence.words)
        for position, candidates in sorted(sentence.candidates.items()):
            # Both are drawn for every word, so that one decision moves no other.
            choice = candidates[int(rng.integers(len(candidates)))]
            if rng.random() < variation.probability:
                words[position] = choice
        found.setdefault(" ".join(words))
    return list(found)[1:]

"""More training text from labelled text: words replaced by what a masked language model or word vectors suggest."""

from __future__ import annotations

from bitpress.augment.masks import MaskedWords
from bitpress.augment.sentences import Sentence, Variation, replaceable, stop_words, variants
from bitpress.augment.vectors import WordVectors

__all__ = ["MaskedWords", "Sentence", "Variation", "WordVectors", "replaceable", "stop_words", "variants"]

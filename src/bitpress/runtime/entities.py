"""Token logits of a text to the entities in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.data.tag_schemes import OUTSIDE, Entity, entities, spell_entities
from bitpress.runtime.tokenization import Words


def find_entities(
    text: str, words: Words, begun: Sequence[int], probabilities: NDArray[np.float64], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The entities of ``text`` in order: ``entity`` (its label), ``score``, ``start`` and ``end`` in characters, and
    the ``text`` between them. The score is the mean over an entity's words of the probability of the tag that each got.

    Every word has the most probable tag of its first token; a word without one is outside of entities. What cannot
    continue an entity begins one (:func:`bitpress.data.tag_schemes.entities`). Where the tags spell no entities
    (:func:`bitpress.data.tag_schemes.spell_entities`), each word that has a token is one, whose label is its tag.

    Args:
        words: [start, end) of each word in ``text``.
        begun: of each token the word that it begins, or -1.
        probabilities: [tokens, C].
        names: of the C tags.
    """
    tags, scores, seen = [OUTSIDE] * len(words), [0.0] * len(words), []
    for word, row in zip(begun, probabilities, strict=True):
        if word >= 0:
            best = int(row.argmax())
            tags[word], scores[word] = names[best], float(row[best])
            seen.append(word)
    spans = entities(tags) if spell_entities(names) else [Entity(tags[word], word, word + 1) for word in seen]
    found = []
    for label, first, last in spans:
        start, end = words[first][0], words[last - 1][1]
        score = sum(scores[first:last]) / (last - first)
        found.append({"entity": label, "score": score, "start": start, "end": end, "text": text[start:end]})
    return found

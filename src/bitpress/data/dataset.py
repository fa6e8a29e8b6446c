"""Labelled text in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Dataset:
    """Texts with their labels, in file order.

    ``labels`` is int64 [N] class indices into ``label_names``, float32 [N] targets (regression) or scores of pairs
    (embedding), float32 [N, C] with 1 where a text has a label (multilabel), or None where there are none or none were
    asked for. ``pairs`` are the second texts, None for a task with one text. ``fingerprint`` is the SHA-256 of
    the (decompressed) file. ``originals``, bool [N], says which rows of an augmented file are not variants of others;
    None where the file is not one.

    Of token classification ``words`` has the places of each text's words, [start, end) in characters, and ``labels``
    one index a word, int64 [W], the words of one text after those of another.

    Of question answering ``texts`` are questions, ``pairs`` their contexts, ``labels`` int64 [N, 2] the characters
    [start, end) of each first answer (-1 where there is none), ``answers`` the texts of all answers to each question,
    and ``ids`` what it is called.

    ``apart``: the two texts of a pair are read each on its own, and so are texts without ``pairs`` (embedding).
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[Any] | None
    label_names: list[str]
    path: str
    fingerprint: str
    originals: NDArray[np.bool_] | None = None
    words: list[list[tuple[int, int]]] | None = None
    ids: list[str] | None = None
    answers: list[list[str]] | None = None
    apart: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sentences(self) -> list[str]:
        """Where texts are ``apart`` all of them, the two of a pair one after the other."""
        assert self.apart, "the two texts of a pair are read together"
        return self.texts if self.pairs is None else interleave(self.texts, self.pairs)

    @property
    def word_counts(self) -> NDArray[np.int64]:
        """Words of each text, int64 [N]; of token classification only."""
        assert self.words is not None, "the data has no words"
        return np.array([len(words) for words in self.words], dtype=np.int64)


def interleave(texts: Sequence[str], pairs: Sequence[str]) -> list[str]:
    """The first text, its pair, the second text, its pair, …"""
    return [text for both in zip(texts, pairs, strict=True) for text in both]

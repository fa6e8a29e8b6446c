"""Nearest neighbours among word vectors, for words that a tokenizer cuts into pieces."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import DataError

MOST_WORDS = (
    100_000  # of a file, from its beginning: files are ordered by frequency, and rare words make odd neighbours
)
_BLOCK = 512  # words whose similarities to all others are computed at once


class WordVectors:
    """Words with their vectors, compared by the cosine of the angle between them.

    Args:
        words: distinct; vectors: [N, d], any floating type.
    """

    def __init__(self, words: Sequence[str], vectors: NDArray[np.floating]) -> None:
        vectors = np.asarray(vectors, np.float32)
        size = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.words = list(words)
        self._vectors = vectors / np.where(size > 0, size, 1)
        self._index = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def from_file(cls, path: str | Path, most: int = MOST_WORDS) -> WordVectors:
        """Read the first ``most`` words of a ``.npz`` with arrays ``words`` and ``vectors``, or of a text file (also
        ``.gz``) with a word and its numbers a line, as GloVe and word2vec have them; a first line of two numbers is
        skipped.

        Raises:
            DataError: the file is missing or of another form; names the line.
        """
        path = Path(path)
        try:
            if path.suffix == ".npz":
                return cls(*_from_npz(path, most))
            return cls(*_from_text(path, most))
        except FileNotFoundError:
            raise DataError("no such file", path) from None
        except OSError as error:
            raise DataError(f"cannot be read: {error}", path) from error

    def neighbours(self, words: Sequence[str], count: int) -> list[tuple[str, ...]]:
        """For each word the ``count`` nearest others, nearest first; nothing for a word that has no vector. A word is
        looked for as it is, then in lower case."""
        rows = [self._index.get(word, self._index.get(word.lower(), -1)) for word in words]
        wanted = sorted({row for row in rows if row >= 0})
        nearest: dict[int, tuple[str, ...]] = {}
        count = min(count, len(self.words) - 1)
        for start in range(0, len(wanted) if count > 0 else 0, _BLOCK):
            block = wanted[start : start + _BLOCK]
            similarity = self._vectors[block] @ self._vectors.T
            similarity[np.arange(len(block)), block] = -np.inf
            best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
            order = np.argsort(-np.take_along_axis(similarity, best, 1), axis=1, kind="stable")
            for row, indices in zip(block, np.take_along_axis(best, order, 1), strict=True):
                nearest[row] = tuple(self.words[i] for i in indices)
        return [nearest.get(row, ()) for row in rows]


def _from_npz(path: Path, most: int) -> tuple[list[str], NDArray[np.floating]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words, vectors = arrays["words"][:most], arrays["vectors"][:most]
    except (KeyError, ValueError) as error:
        raise DataError(f"expected arrays 'words' and 'vectors' ({error})", path) from None
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise DataError(f"{len(words)} words and vectors of shape {vectors.shape}; [words, d] is expected", path)
    return [str(word) for word in words], vectors


def _from_text(path: Path, most: int) -> tuple[list[str], NDArray[np.floating]]:
    words: dict[str, None] = {}
    rows: list[NDArray[np.float32]] = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *numbers = line.rstrip("\n").split(" ")
            if number == 1 and len(numbers) == 1:
                continue  # word2vec: how many, and how long
            try:
                row = np.array([float(x) for x in numbers if x], np.float32)
            except ValueError:
                row = np.zeros(0, np.float32)
            if not len(row) or (rows and len(row) != len(rows[0])):
                wanted = f"{len(rows[0])} numbers" if rows else "numbers"
                raise DataError(
                    f"found {line.strip()[:60]!r}; a word and {wanted} with spaces between are expected", path, number
                )
            if word in words:
                continue
            words[word] = None
            rows.append(row)
            if len(rows) == most:
                break
    if not rows:
        raise DataError("has no vectors", path)
    return list(words), np.stack(rows)

"""``bitpress augment``: labelled text in, the same text and variants of it out, as JSON lines.

A pair of texts is varied one text at a time, the other as it was. (As released, the second text is paired with the last
variant of the first, and one row comes twice.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.augment import MaskedWords, Sentence, Variation, WordVectors, replaceable, stop_words, variants
from bitpress.data import (
    EMBEDDING,
    QUESTION_ANSWERING,
    SOURCE_ROW,
    TOKEN_CLASSIFICATION,
    VARIANT,
    Dataset,
    get_task,
)
from bitpress.encoder import MaskedLanguageHead, load_classifier, load_extra_tensors
from bitpress.encoder.masked_lm import PREFIX
from bitpress.errors import DataError, RecipeError
from bitpress.recipes.inputs import DataOptions, file_digest, read_split, weights_digest
from bitpress.recipes.progress import progress_bar
from bitpress.runtime.tokenization import Tokenizer

ROWS_AT_ONCE = 128  # whose masks share batches, and after which what was written is safe


@dataclass(frozen=True)
class AugmentResult:
    """What was written: rows in, rows out (the originals among them)."""

    out: str
    rows: int
    written: int

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def augment(
    train: str | Path,
    *,
    out: str | Path,
    mlm: str | Path | None = None,
    vectors: str | Path | None = None,
    task: str = "classification",
    columns: DataOptions | None = None,
    variation: Variation | None = None,
    candidates: int = 15,
    masks_per_input: int = 4,
    stop: str | Path = "english",
    tokenizer: str | Path | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> AugmentResult:
    """Write every row of ``train`` and its variants to ``out``, JSON lines with the task's columns, ``source_row``
    (counted from 0), ``variant`` (0 is the row itself, unchanged) and ``seed``.

    The same arguments give the same bytes. Killed at any moment and called again with the same arguments it continues;
    finished, it returns at once.

    Args:
        mlm: directory of an encoder with a masked-language-model head (``pretrain --task mlm``, or a BertForMaskedLM),
            for words of one piece.
        vectors: word vectors (:meth:`WordVectors.from_file`), for all other words.
        candidates: a word; masks_per_input: see :class:`MaskedWords`.
        stop: words that stay: "english", "none" or a file.
        tokenizer: directory whose tokenizer splits text into words; None: ``mlm``. Needed without ``mlm``.

    Raises:
        DataError, RecipeError, UnsupportedModelError: before anything is written.
    """
    variation = variation or Variation()
    if mlm is None and vectors is None:
        raise RecipeError("nothing says what may replace a word; give --mlm, --vectors or both")
    if candidates < 1 or masks_per_input < 1:
        raise RecipeError(f"candidates is {candidates} and masks_per_input {masks_per_input}; both are 1 or more")
    words_from = tokenizer or mlm
    if words_from is None:
        raise RecipeError("nothing says what a word is; give --tokenizer, a directory that has one")
    known = get_task(task)
    if known.kind == TOKEN_CLASSIFICATION:
        raise RecipeError(f"task {task!r} has tagged words; augment writes variants of texts and pairs only")
    if known.kind == QUESTION_ANSWERING:
        raise RecipeError(f"task {task!r} has answers in contexts; augment writes variants of texts and pairs only")
    if known.kind == EMBEDDING:
        raise RecipeError(f"task {task!r}: a variant of a text may mean something else; augment needs another task")
    data = read_split(train, known, columns, None)
    splitter = Tokenizer.from_directory(words_from)
    settings = {
        "train_sha256": data.fingerprint,
        "mlm_sha256": None if mlm is None else weights_digest(mlm),
        "vectors_sha256": None if vectors is None else file_digest(vectors),
        "tokenizer": splitter.digest(),
        "task": dataclasses.asdict(known),
        "columns": dataclasses.asdict(columns or DataOptions()),
        "variation": dataclasses.asdict(variation),
        "candidates": candidates,
        "masks_per_input": masks_per_input,
        "stop": sorted(stop_words(stop)),
        "seed": seed,
    }
    progress = _Progress(Path(out), settings)
    if progress.rows < len(data):
        suggest = _suggestions(mlm, vectors, splitter, candidates, masks_per_input)
        write = _rows(data, splitter, suggest, stop_words(stop), variation, seed, progress.rows)
        with progress_bar("augment", quiet) as advance:
            advance(progress.rows, len(data))
            for rows in write:
                progress.append([json.dumps(row | {"seed": seed}, ensure_ascii=False) for row in rows.lines], rows.done)
                advance(rows.done, len(data))
    return AugmentResult(str(out), len(data), progress.written)


@dataclass(frozen=True)
class _Rows:
    lines: list[dict[str, Any]]
    done: int  # rows of the input, these included


Suggest = Callable[[Sequence[Sequence[str]], Sequence[Sequence[int]]], list[dict[int, tuple[str, ...]]]]


def _suggestions(
    mlm: str | Path | None, vectors: str | Path | None, tokenizer: Tokenizer, count: int, masks_per_input: int
) -> Suggest:
    """Candidates of a masked language model where it has any, else the neighbours of the word's vector."""
    by_mask = None
    if mlm is not None:
        model = load_classifier(mlm)
        head = MaskedLanguageHead.from_tensors(load_extra_tensors(mlm, PREFIX), model.config)
        by_mask = MaskedWords(model, head, Tokenizer.from_directory(mlm), count, masks_per_input)
    by_vector = None if vectors is None else WordVectors.from_file(vectors)

    def suggest(
        sentences: Sequence[Sequence[str]], positions: Sequence[Sequence[int]]
    ) -> list[dict[int, tuple[str, ...]]]:
        found = [{} for _ in sentences] if by_mask is None else by_mask.candidates(sentences, positions)
        if by_vector is None:
            return found
        missing = [
            (number, position)
            for number, wanted in enumerate(positions)
            for position in wanted
            if position not in found[number] and not _is_piece(by_mask, sentences[number][position])
        ]
        near = by_vector.neighbours([sentences[number][position] for number, position in missing], count)
        for (number, position), words in zip(missing, near, strict=True):
            if words:
                found[number][position] = words
        return found

    return suggest


def _is_piece(by_mask: MaskedWords | None, word: str) -> bool:
    """Whether the masked language model is who answers for a word."""
    return by_mask is not None and len(by_mask.tokenizer.pieces([word])[0]) == 1


def _rows(
    data: Dataset,
    tokenizer: Tokenizer,
    suggest: Suggest,
    stop: frozenset[str],
    variation: Variation,
    seed: int,
    begin: int,
) -> Iterator[_Rows]:
    """What is to be written, a chunk of the input after the other from row ``begin`` on."""
    names = _column_names(data)
    for start in range(begin, len(data), ROWS_AT_ONCE):
        rows = range(start, min(len(data), start + ROWS_AT_ONCE))
        texts = [[data.texts[row] for row in rows]]
        if data.pairs is not None:
            texts.append([data.pairs[row] for row in rows])
        sides = [_sentences(side, tokenizer, suggest, stop) for side in texts]
        lines: list[dict[str, Any]] = []
        for i, row in enumerate(rows):
            original = {name: side[i] for name, side in zip(names, texts, strict=False)}
            label = _label(data, row)
            versions = [original]
            for number, (name, side) in enumerate(zip(names, sides, strict=False)):
                rng = np.random.default_rng([seed, row, number])
                versions += [original | {name: text} for text in variants(side[i], variation, rng)]
            lines += [{**version, names[-1]: label, SOURCE_ROW: row, VARIANT: n} for n, version in enumerate(versions)]
        yield _Rows(lines, rows.stop)


def _sentences(texts: Sequence[str], tokenizer: Tokenizer, suggest: Suggest, stop: frozenset[str]) -> list[Sentence]:
    words = [tokenizer.split(text) for text in texts]
    positions = [replaceable(some, stop) for some in words]
    found = suggest(words, positions)
    return [Sentence(tuple(some), candidates) for some, candidates in zip(words, found, strict=True)]


def _column_names(data: Dataset) -> list[str]:
    """Of the texts and, last, the label: names under which every task finds them."""
    texts = ["text"] if data.pairs is None else ["text1", "text2"]
    return [*texts, "label"]


def _label(data: Dataset, row: int) -> str | float | list[str]:
    assert data.labels is not None, "read_split requires labels"
    value = data.labels[row]
    if value.ndim:  # of labels that go together
        return [data.label_names[i] for i in value.nonzero()[0]]
    return data.label_names[int(value)] if data.label_names else float(value)


class _Progress:
    """How far the output is, in a file beside it; what stands behind that point was not finished and is cut off.

    Raises:
        DataError: the output is of other settings, or of no run at all.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.path = out.with_name(f"{out.name}.progress.json")
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.rows = self.written = self._bytes = 0
        if self.path.is_file():
            state = json.loads(self.path.read_text(encoding="utf-8"))
            if state["settings"] != self.settings:
                raise DataError(f"is of other settings; choose another --out, or delete it and {self.path}", out)
            self.rows, self.written, self._bytes = state["rows"], state["written"], state["bytes"]
            if self._bytes and (not out.is_file() or out.stat().st_size < self._bytes):
                raise DataError(f"is shorter than {self.path} says; delete both to start again", out)
        elif out.exists():
            raise DataError("exists already; choose another --out, or delete it", out)

    def append(self, lines: Sequence[str], rows: int) -> None:
        """Write lines, then that ``rows`` of the input are done; each is on disk before the next."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            self._record()  # from here on the output is known to be ours
        with self.out.open("ab") as file:
            file.truncate(self._bytes)
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            self._bytes = file.tell()
        self.rows, self.written = rows, self.written + len(lines)
        self._record()

    def _record(self) -> None:
        state = {"settings": self.settings, "rows": self.rows, "written": self.written, "bytes": self._bytes}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(state) + "\n", encoding="utf-8")
        temporary.replace(self.path)

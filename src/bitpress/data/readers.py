"""Labelled text files to ``Dataset``, and unlabelled ones to a stream of texts.

A file is read as asked or refused with a DataError that names file, line and column: a column that cannot be found, a
row of another width, an empty text, an unknown label, a target that is no finite number.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bitpress.data.dataset import Dataset
from bitpress.data.label_sets import read_label_sets
from bitpress.data.questions import read_questions
from bitpress.data.saved import is_saved, read_saved_table
from bitpress.data.tables import (
    MAX_CLASSES,
    Table,
    check_characters,
    field_value,
    file_format,
    find_column,
    listed,
    read_bytes,
    read_table,
    require_column,
)
from bitpress.data.tagged import read_tagged
from bitpress.data.tasks import EMBEDDING, MULTILABEL, QUESTION_ANSWERING, TOKEN_CLASSIFICATION, Task
from bitpress.errors import DataError

# Names that text, second text and label go by in published datasets, most specific first.
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("text", "text_pair"),
    ("text", "pair"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("anchor", "positive"),
    ("query", "positive"),
    ("#1 string", "#2 string"),
)
TEXT_COLUMNS = (
    *("sentence", "text", "review", "content", "sentence1", "text1", "premise", "question", "query", "utterance"),
    *("tweet", "comment", "message", "body", "document", "headline", "title"),
)
LABEL_COLUMNS = {
    "classification": (
        *("label", "labels", "class", "category", "target", "sentiment", "intent", "gold_label", "quality"),
        *("polarity", "rating", "score"),
    ),
    "regression": ("score", "label", "labels", "target", "similarity", "rating", "value"),
    "embedding": ("score", "similarity", "similarity_score", "label", "labels", "target", "rating", "value"),
}

# What `bitpress augment` writes beside a row: the row it comes from, and which of its variants it is (0: that row).
SOURCE_ROW, VARIANT = "source_row", "variant"

MAX_LABEL_LENGTH = 200


def read_dataset(
    path: str | Path,
    task: Task,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    label_names: list[str] | None = None,
    require_labels: bool = True,
) -> Dataset:
    """Read a csv, tsv or jsonl file (each also ``.gz``), or a dataset of the ``datasets`` library
    (:mod:`bitpress.data.saved`), for ``task``.

    Columns given here win over the task's own, which win over common names. With ``label_names`` (a model's, in index
    order) every label must be one of them; without, they are the task's, or the file's own distinct labels, sorted
    (as numbers where all are). ``require_labels=False`` does not read the label column at all. Raises DataError.

    Files of token classification: :func:`bitpress.data.tagged.read_tagged`, of question answering
    :func:`bitpress.data.questions.read_questions`, of labels that go together
    :func:`bitpress.data.label_sets.read_label_sets`. Of embedding a file has pairs of texts with scores or without, or,
    where there is no second column of text, texts alone.
    """
    if task.kind == TOKEN_CLASSIFICATION:
        if pair_column is not None:
            raise DataError(f"--pair-column is {pair_column!r}; words are tagged in one text, leave it out", path)
        return read_tagged(path, text_column, label_column, label_names)
    if task.kind == QUESTION_ANSWERING:
        return read_questions(path, text_column, pair_column, label_column, label_names or ())
    # A task with its own layout reads the published files, in which a quotation mark is a character like any other.
    own_text = (text_column or task.text_column) if task.text_column is not None else None
    table, fingerprint = _load_table(path, task.columns, own_text)
    text, pair = _find_texts(table, task, text_column, pair_column)
    columns_of_text = [text] if pair is None else [text, pair]
    if task.kind == MULTILABEL:
        sets, names = read_label_sets(table, columns_of_text, label_column, label_names, require_labels)
        return Dataset(*_texts(table, text, pair), sets, names, str(path), fingerprint, _originals(table))
    is_asked = require_labels and not (task.kind == EMBEDDING and pair is None)
    label = _find_label(table, task, label_column) if is_asked else None
    if label is not None and label in (text, pair):
        raise DataError("one column cannot be both text and label", path, table.header_line, table.columns[label])
    texts, pairs = _texts(table, text, pair)
    labels: NDArray[Any] | None = None
    names = list(label_names or task.labels or ())
    if label is not None and task.kind in ("regression", EMBEDDING):
        labels = np.array([_target(table, line, values, label) for line, values in table.rows], dtype=np.float32)
    elif label is not None:
        raw = [_label(table, line, values, label) for line, values in table.rows]
        names = names or _label_names(table, raw, label)
        labels = _class_indices(table, raw, label, names, task)
    apart = task.kind == EMBEDDING
    return Dataset(texts, pairs, labels, names, str(path), fingerprint, _originals(table), apart=apart)


def _load_table(path: str | Path, names: tuple[str, ...] = (), text_column: str | None = None) -> tuple[Table, str]:
    """A file (:func:`read_table`) or a dataset of the ``datasets`` library, and the SHA-256 of what it holds."""
    if is_saved(path):
        return read_saved_table(path)
    content = read_bytes(path)
    return read_table(path, content, names, text_column), hashlib.sha256(content).hexdigest()


def _originals(table: Table) -> NDArray[np.bool_] | None:
    """Which rows have ``variant`` 0, where the file has the columns that ``bitpress augment`` adds."""
    if not {SOURCE_ROW, VARIANT} <= set(table.columns):
        return None
    variant = table.columns.index(VARIANT)
    return np.array([str(field_value(table, line, values, variant)) == "0" for line, values in table.rows])


def iter_texts(
    source: str | Path | BinaryIO, *, text_column: str | None = None, pair_column: str | None = None
) -> Iterator[str | tuple[str, str]]:
    """Texts to predict, as ``str`` or, where the file has two text columns, ``(text, pair)``.

    ``source`` is a csv, tsv or jsonl file (each also ``.gz``), a dataset (:mod:`bitpress.data.saved`), any other file
    as plain text with one text a line, a binary stream of such lines, or ``-`` for standard input. Lines of plain text
    are yielded as they arrive, empty ones too, so that the n-th result belongs to the n-th line. Raises DataError.
    """
    if not isinstance(source, str | Path):
        yield from _iter_lines(source, getattr(source, "name", "<stream>"))
    elif str(source) == "-":
        yield from _iter_lines(sys.stdin.buffer, "<stdin>")
    elif not is_saved(source) and (
        file_format(source) is None or str(source).lower().removesuffix(".gz").endswith(".txt")
    ):
        yield from _iter_file(Path(source))
    else:
        table, _ = _load_table(source)
        text, pair = _find_texts(table, None, text_column, pair_column)
        for line, values in table.rows:
            first = _text(table, line, values, text, allow_empty=True)
            yield first if pair is None else (first, _text(table, line, values, pair, allow_empty=True))


def _iter_file(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield from _iter_lines(gzip.GzipFile(fileobj=file) if zipped else file, str(path))
    except FileNotFoundError:
        raise DataError("no such file", path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", path) from error


def _iter_lines(stream: Iterable[bytes], path: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
        check_characters([text], [], path, number)
        yield text


def _find_texts(table: Table, task: Task | None, text: str | None, pair: str | None) -> tuple[int, int | None]:
    """Positions of text and pair: as asked, else as the task says, else by common names."""
    own_text, own_pair = (task.text_column, task.pair_column) if task else (None, None)
    singles = [(name, pair) for name in TEXT_COLUMNS]
    candidates: list[tuple[str, str | None]] = []
    if own_text is not None:
        candidates.append((own_text, pair or own_pair))
    if pair is None and (own_text is None or own_pair is not None):
        candidates.extend(PAIR_COLUMNS)
    if pair is not None or own_pair is None:
        candidates.extend(singles)
    if text is not None:
        candidates = [(text, pair or own_pair)]
    for one, two in candidates:
        first, second = find_column(table, one), find_column(table, two) if two is not None else None
        if first is not None and (two is None or second is not None):
            if first == second:
                raise DataError("one column cannot be both texts", table.path, table.header_line, one)
            return first, second
    if (asked_text := text or own_text) is not None:
        require_column(table, asked_text, "--text-column")
    if (asked_pair := pair or own_pair) is not None:
        require_column(table, asked_pair, "--pair-column")
    raise DataError(_no_text_message(table), table.path, table.header_line or 1)


def _no_text_message(table: Table) -> str:
    found = f"no column with the text was found among {listed(table.columns)}"
    if table.header_line is None:
        return f"{found}; name it with --text-column, or call it 'text'"
    if len(table.columns) == 1 and any(mark in table.columns[0] for mark in ";,|\t"):
        return f"{found}; separate the columns by tabs in .tsv and by commas in .csv"
    return (
        f"{found}; the first line must be a header with the names of the columns, such as 'sentence' and 'label' "
        "(add one if that line is already data, or name the layout, such as --task glue/cola), or name the column "
        "with --text-column"
    )


def _find_label(table: Table, task: Task, asked: str | None) -> int | None:
    """Position of the label; None where the pairs of an embedding task have no score."""
    if asked is not None:
        return require_column(table, asked, "--label-column")
    for name in (*([task.label_column] if task.label_column else []), *LABEL_COLUMNS[task.kind]):
        index = find_column(table, name)
        if index is not None:
            return index
    if task.kind == EMBEDDING:
        return None
    raise DataError(
        f"no column with the label was found among {listed(table.columns)}; name it with --label-column",
        table.path,
        table.header_line or 1,
        task.label_column,
    )


def _texts(table: Table, text: int, pair: int | None) -> tuple[list[str], list[str] | None]:
    """Of every row the text, and the second one where there is one."""
    texts = [_text(table, line, values, text) for line, values in table.rows]
    return texts, None if pair is None else [_text(table, line, values, pair) for line, values in table.rows]


def _text(table: Table, line: int, values: list[Any], index: int, allow_empty: bool = False) -> str:
    text = field_value(table, line, values, index)
    if not isinstance(text, str):
        raise DataError(f"expected text, found {text!r:.60}", table.path, line, table.columns[index])
    if not allow_empty and not text.strip():
        raise DataError("the text is empty; fill it or remove the row", table.path, line, table.columns[index])
    return text


def _target(table: Table, line: int, values: list[Any], index: int) -> float:
    value = field_value(table, line, values, index)
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        target = float(value)
        # float32 is what training and metrics use; 1e39 is finite only as a double.
        if not math.isfinite(target) or abs(target) > float(np.finfo(np.float32).max):
            raise ValueError
    except (ValueError, OverflowError):
        raise DataError(
            f"expected a finite number, found {value!r:.60}", table.path, line, table.columns[index]
        ) from None
    return target


def _label(table: Table, line: int, values: list[Any], index: int) -> str:
    """A class name as text; JSON integers count as their digits."""
    value = field_value(table, line, values, index)
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        value = str(int(value))
    if not isinstance(value, str):
        raise DataError(f"expected a class name or number, found {value!r:.60}", table.path, line, table.columns[index])
    if not value.strip():
        raise DataError("the label is empty", table.path, line, table.columns[index])
    return value.strip()


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isascii() and name.removeprefix("-").isdigit()


def _label_names(table: Table, raw: list[str], index: int) -> list[str]:
    """Distinct labels, sorted; refused where the column can hardly hold classes."""
    names, column = sorted(set(raw)), table.columns[index]
    for (line, _), label in zip(table.rows, raw, strict=True):
        if len(label) > MAX_LABEL_LENGTH:
            raise DataError(
                f"found a label of {len(label)} characters (allowed: {MAX_LABEL_LENGTH}); perhaps this column holds "
                "the text: name the label's with --label-column",
                table.path,
                line,
                column,
            )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"found {len(names)} different labels in {len(raw)} rows (allowed: {MAX_CLASSES} classes); perhaps this "
            "column holds the text (name the label's with --label-column) or numbers to predict (--task regression)",
            table.path,
            table.header_line,
            column,
        )
    if len(names) < 2:
        raise DataError(
            f"found one class only, {names[0]!r}; a classifier needs at least two",
            table.path,
            table.header_line,
            column,
        )
    return sorted(names, key=_number) if all(map(_is_number, names)) else names


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _number(name: str) -> tuple[float, str]:
    return float(name), name


def _class_indices(table: Table, raw: list[str], index: int, names: list[str], task: Task) -> NDArray[np.int64]:
    """Class index of every label [N].

    A file may write a class by its name, by its name in other letters' case, by its index (``0``, ``1``, as GLUE and
    Hugging Face datasets do), or by the task's own name where the model's are but ``LABEL_0, LABEL_1``. The first row
    decides which; all rows must follow.
    """
    spellings: list[tuple[list[str], Callable[[str], str]]] = [(names, str)]
    if len({name.lower() for name in names}) == len(names):
        spellings.append((names, str.lower))
    if not any(map(_is_integer, names)):
        spellings.append(([str(i) for i in range(len(names))], str))
    if task.labels is not None and [name.upper() for name in names] == [f"LABEL_{i}" for i in range(len(task.labels))]:
        spellings.append((list(task.labels), str))
    for allowed, fold in spellings:
        lookup = {fold(name): i for i, name in enumerate(allowed)}
        if fold(raw[0]) in lookup:
            break
    else:
        (allowed, fold), lookup = spellings[0], {}
    also = f", or by index 0 to {len(names) - 1}" if not lookup and not any(map(_is_integer, names)) else ""
    for (line, _), label in zip(table.rows, raw, strict=True):
        if fold(label) not in lookup:
            raise DataError(
                f"unknown label {label[:60]!r}; allowed: {listed(allowed)}{also}",
                table.path,
                line,
                table.columns[index],
            )
    return np.array([lookup[fold(label)] for label in raw], dtype=np.int64)

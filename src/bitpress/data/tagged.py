"""Files of tagged words or marked entities to ``Dataset``: CoNLL columns and JSON lines (docs/ner.md).

Whatever the scheme of a file, its tags come out in IOB2 (:mod:`bitpress.data.tag_schemes`). A file is read as meant or
refused with a DataError that names file, line and column.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.data.dataset import Dataset
from bitpress.data.saved import is_saved, read_saved_table
from bitpress.data.tables import (
    Table,
    check_characters,
    decode,
    field_value,
    file_format,
    find_column,
    listed,
    read_bytes,
    read_table,
    require_column,
)
from bitpress.data.tag_schemes import (
    OUTSIDE,
    Entity,
    detect_scheme,
    entities,
    first_violation,
    split_tag,
    tag_names,
    to_iob2,
)
from bitpress.data.words import split_words
from bitpress.errors import DataError

WORDS_COLUMNS, TAGS_COLUMNS = ("tokens", "words"), ("tags", "ner_tags", "labels")
TEXT_COLUMNS, ENTITIES_COLUMNS = ("text", "sentence"), ("entities", "spans")
DOCUMENT = "-DOCSTART-"


@dataclass
class _Sentence:
    """A text with the places and tags of its words; ``lines``: of each word; ``column`` of the tags, for errors."""

    text: str
    words: list[tuple[int, int]]
    tags: list[str]
    lines: list[int]
    column: str


def read_tagged(
    path: str | Path, text_column: str | None, label_column: str | None, label_names: Sequence[str] | None
) -> Dataset:
    """Read jsonl (also ``.gz``) or a dataset of the ``datasets`` library, or anything else as CoNLL columns.

    Args:
        text_column, label_column: of jsonl and datasets the keys; of CoNLL columns numbers, counted from 1, where words
            are not the first column or tags not the last.
        label_names: a model's tags, in index order, of which every tag must be one; None: O, and B and I of each label
            in the file, sorted.

    Raises:
        DataError: says what cannot be read, and what to do.
    """
    sentences, fingerprint = _sentences(path, text_column, label_column)
    _to_iob2(sentences, path)
    names = list(label_names or _names(sentences, path))
    index = {name: i for i, name in enumerate(names)}
    for sentence in sentences:
        for line, tag in zip(sentence.lines, sentence.tags, strict=True):
            if tag not in index:
                label = split_tag(tag)[1]
                allowed = listed(dict.fromkeys(split_tag(name)[1] for name in names if name != OUTSIDE))
                raise DataError(f"unknown entity {label[:60]!r}; allowed: {allowed}", path, line, sentence.column)
    labels = np.array([index[tag] for sentence in sentences for tag in sentence.tags], dtype=np.int64)
    words = [sentence.words for sentence in sentences]
    texts = [sentence.text for sentence in sentences]
    return Dataset(texts, None, labels, names, str(path), fingerprint, words=words)


def _sentences(path: str | Path, text_column: str | None, label_column: str | None) -> tuple[list[_Sentence], str]:
    """What the file says, its tags as they are, and its SHA-256."""
    if is_saved(path):
        table, fingerprint = read_saved_table(path)
        return _read_jsonl(table, text_column, label_column), fingerprint
    content = read_bytes(path)
    kind = file_format(path)
    if kind == "csv":
        raise DataError("csv cannot hold tagged words; allowed: jsonl, or CoNLL columns (docs/ner.md)", path)
    if kind == "jsonl":
        found = _read_jsonl(read_table(path, content), text_column, label_column)
    else:
        found = _read_columns(decode(content, path), path, text_column, label_column)
    return found, hashlib.sha256(content).hexdigest()


def _names(sentences: list[_Sentence], path: str | Path) -> list[str]:
    labels = {split_tag(tag)[1] for sentence in sentences for tag in sentence.tags if tag != OUTSIDE}
    if not labels:
        raise DataError(
            f"found no entity in {len(sentences)} sentences, so there is nothing to learn; is the column of the tags "
            "another one? Name it with --label-column",
            path,
        )
    return tag_names(labels)


def _to_iob2(sentences: list[_Sentence], path: str | Path) -> None:
    scheme = detect_scheme(sentence.tags for sentence in sentences)
    for sentence in sentences:
        wrong = first_violation(sentence.tags, scheme)
        if wrong is not None:
            raise DataError(wrong[1], path, sentence.lines[wrong[0]], sentence.column)
        sentence.tags = to_iob2(entities(sentence.tags), len(sentence.tags))


def _of_words(words: list[str], tags: list[str], lines: list[int], column: str) -> _Sentence:
    """Words with a space between each two."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return _Sentence(" ".join(words), places, tags, lines, column)


def _check_tag(tag: str, path: str | Path, line: int, column: str) -> None:
    try:
        split_tag(tag)
    except ValueError as error:
        raise DataError(f"{error}; name another column with --label-column", path, line, column) from None


# --- CoNLL columns ---


def _read_columns(text: str, path: str | Path, text_column: str | None, label_column: str | None) -> list[_Sentence]:
    """One word a line, its columns between tabs or, in a file without any, spaces; an empty line ends a sentence."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith(("#", DOCUMENT))), None)
    if first is None:
        raise DataError("found no line with a word and its tag", path, 1)
    separator = re.compile("\t" if "\t" in lines[first] else "[ \t]+")
    width = len(_fields(lines[first], separator))
    if width < 2:
        raise DataError(
            f"found one column, {lines[first].strip()[:60]!r}; expected a word and its tag, with a tab or a space "
            "between them (docs/ner.md), or jsonl by the name of the file",
            path,
            first + 1,
        )
    word_at = _column_number(text_column, "--text-column", 1, width, path)
    tag_at = _column_number(label_column, "--label-column", width, width, path)
    if word_at == tag_at:
        raise DataError("one column cannot be both word and tag", path, first + 1, str(tag_at + 1))
    sentences: list[_Sentence] = []
    words, tags, numbers = list[str](), list[str](), list[int]()
    for number, line in enumerate([*lines, ""], 1):
        fields = _fields(line, separator)
        is_document = line.startswith(DOCUMENT)
        if not line.strip() or is_document:
            if words:
                sentences.append(_of_words(words, tags, numbers, str(tag_at + 1)))
                words, tags, numbers = [], [], []
            continue
        if not words and line.startswith("#") and not _is_row(fields, width, tag_at):
            continue  # a comment, which stands before a sentence; "#" may be a word too
        if len(fields) != width:
            raise DataError(
                f"malformed row: found {len(fields)} columns, line {first + 1} has {width}; one word a line, an empty "
                "line between sentences",
                path,
                number,
            )
        check_characters(fields, [str(i + 1) for i in range(width)], path, number)
        if not fields[word_at].strip():
            raise DataError("the word is empty", path, number, str(word_at + 1))
        _check_tag(fields[tag_at], path, number, str(tag_at + 1))
        words.append(fields[word_at])
        tags.append(fields[tag_at])
        numbers.append(number)
    return sentences


def _fields(line: str, separator: re.Pattern[str]) -> list[str]:
    """Spaces around a word or a tag between tabs are no part of it."""
    return [
        field.strip(" ") for field in separator.split(line.strip(" ") if separator.pattern == "\t" else line.strip())
    ]


def _is_row(fields: list[str], width: int, tag_at: int) -> bool:
    if len(fields) != width:
        return False
    try:
        split_tag(fields[tag_at])
    except ValueError:
        return False
    return True


def _column_number(asked: str | None, option: str, default: int, width: int, path: str | Path) -> int:
    """A column from 0 on, of one that is counted from 1."""
    number = default if asked is None else int(asked) if asked.isascii() and asked.isdecimal() else 0
    if not 1 <= number <= width:
        raise DataError(f"{option} is {asked!r}; the columns of this file are numbered from 1 to {width}", path)
    return number - 1


# --- JSON lines ---


def _read_jsonl(table: Table, text_column: str | None, label_column: str | None) -> list[_Sentence]:
    """Objects of tokens and tags, or of a text and its entities."""
    first = _choose(table, text_column, (*WORDS_COLUMNS, *TEXT_COLUMNS), "--text-column", "the words or the text")
    holds_words = isinstance(table.rows[0][1][first], list)
    names = TAGS_COLUMNS if holds_words else ENTITIES_COLUMNS
    second = _choose(table, label_column, names, "--label-column", "the tags" if holds_words else "the entities")
    sentences = []
    for line, values in table.rows:
        read = _words_and_tags if holds_words else _text_and_entities
        sentences.append(read(table, line, values, first, second))
    return sentences


def _choose(table: Table, asked: str | None, names: Sequence[str], option: str, what: str) -> int:
    if asked is not None:
        return require_column(table, asked, option)
    for name in names:
        found = find_column(table, name)
        if found is not None:
            return found
    raise DataError(
        f"no key with {what} was found among {listed(table.columns)}; call it {names[0]!r}, or name it with {option}",
        table.path,
        1,
    )


def _words_and_tags(table: Table, line: int, values: list[Any], first: int, second: int) -> _Sentence:
    lists = []
    for index, what in ((first, "words"), (second, "tags")):
        value = field_value(table, line, values, index)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(
                f"expected a list of {what}, each a string, found {value!r:.60}", table.path, line, table.columns[index]
            )
        check_characters(value, [table.columns[index]] * len(value), table.path, line)
        lists.append(value)
    words, tags = lists
    if len(words) != len(tags) or not words or not all(word.strip() for word in words):
        raise DataError(
            f"found {len(words)} words and {len(tags)} tags; expected as many of each, at least one, and no empty word",
            table.path,
            line,
            table.columns[second],
        )
    for tag in tags:
        _check_tag(tag, table.path, line, table.columns[second])
    return _of_words(words, tags, [line] * len(words), table.columns[second])


def _text_and_entities(table: Table, line: int, values: list[Any], first: int, second: int) -> _Sentence:
    text, marked = field_value(table, line, values, first), field_value(table, line, values, second)
    where = (table.path, line, table.columns[second])
    if not isinstance(text, str) or not split_words(text):
        raise DataError(f"expected text with a word in it, found {text!r:.60}", table.path, line, table.columns[first])
    if not isinstance(marked, list):
        raise DataError(f"expected a list of entities, found {marked!r:.60}", *where)
    words = split_words(text)
    found = sorted((_entity(entity, text, words, where) for entity in marked), key=lambda entity: entity.start)
    for one, other in pairwise(found):
        if other.start < one.end:
            raise DataError(f"the entities {one.label!r} and {other.label!r} share a word; keep one of them", *where)
    return _Sentence(text, words, to_iob2(found, len(words)), [line] * len(words), table.columns[second])


def _entity(value: Any, text: str, words: list[tuple[int, int]], where: tuple[str, int, str]) -> Entity:
    """The words that ``{"start", "end", "label"}`` covers."""
    start, end, label = (
        (value.get(key) for key in ("start", "end", "label")) if isinstance(value, dict) else (None,) * 3
    )
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label:
        raise DataError(
            f'expected {{"start": …, "end": …, "label": …}} with characters from 0 and a name, found {value!r:.60}',
            *where,
        )
    check_characters([label], [where[2]], where[0], where[1])
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"entity {label!r} is at {start} to {end}; the text has {len(text)} characters, counted from 0, and the "
            "end is behind the last one",
            *where,
        )
    covered = [i for i, (first, last) in enumerate(words) if first < end and start < last]
    if not covered:
        raise DataError(f"entity {label!r} at {start} to {end} holds no word, only {text[start:end]!r:.60}", *where)
    for i in (covered[0], covered[-1]):
        first, last = words[i]
        if first < start or last > end:
            raise DataError(
                f"entity {label!r} at {start} to {end}, {text[start:end][:40]!r}, cuts the word "
                f"{text[first:last][:40]!r} at {first} to {last}; let it begin and end with whole words",
                *where,
            )
    return Entity(label, covered[0], covered[-1] + 1)

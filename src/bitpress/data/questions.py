"""Files of questions about contexts to ``Dataset``: SQuAD's JSON, and JSON lines (docs/qa.md).

A file is read as meant or refused with a DataError that names file, line or question, and where an answer should be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.data.dataset import Dataset
from bitpress.data.saved import is_saved, read_saved_table
from bitpress.data.tables import (
    MISSING,
    Table,
    check_characters,
    decode,
    field_value,
    file_format,
    find_column,
    read_bytes,
    read_table,
    require_column,
)
from bitpress.errors import DataError

# The two outputs of a model of question answering: of a token as the start and as the end of an answer.
OUTPUTS = ("start", "end")
NO_ANSWER = (-1, -1)


@dataclass(frozen=True)
class Question:
    """One question. ``answers``: [start, end) of each in ``context``, in characters; empty: there is none."""

    id: str
    question: str
    context: str
    answers: list[tuple[int, int]]


@dataclass(frozen=True)
class _Place:
    """Where in a file a question stands, for errors."""

    path: str | Path
    line: int | None = None
    id: str | None = None

    def error(self, message: str, key: str | None = None) -> DataError:
        return DataError(message if self.id is None else f"question {self.id!r}: {message}", self.path, self.line, key)


def read_questions(
    path: str | Path, text_column: str | None, pair_column: str | None, label_column: str | None, names: Sequence[str]
) -> Dataset:
    """Read labelled questions: SQuAD's JSON of version 1.1 or 2.0, jsonl (each also ``.gz``) or a dataset of the
    ``datasets`` library.

    ``texts`` are the questions, ``pairs`` the contexts, ``labels`` int64 [N, 2] the characters of the first answer of
    each, or ``NO_ANSWER``.

    Args:
        text_column, pair_column, label_column: keys of question, context and answers, in jsonl and datasets only.
        names: of the model's two outputs; empty: ``OUTPUTS``.

    Raises:
        DataError: says what cannot be read, and what to do.
    """
    questions, fingerprint = _questions(path, (text_column, pair_column, label_column), with_answers=True)
    first = [question.answers[0] if question.answers else NO_ANSWER for question in questions]
    return Dataset(
        [question.question for question in questions],
        [question.context for question in questions],
        np.array(first, dtype=np.int64).reshape(-1, 2),
        list(names or OUTPUTS),
        str(path),
        fingerprint,
        ids=[question.id for question in questions],
        answers=[[q.context[start:end] for start, end in q.answers] for q in questions],
    )


def iter_questions(
    path: str | Path, text_column: str | None = None, pair_column: str | None = None
) -> Iterator[Question]:
    """Questions to answer, of the files that :func:`read_questions` reads; their own answers are not read."""
    yield from _questions(path, (text_column, pair_column, None), with_answers=False)[0]


def may_hold_questions(path: str | Path) -> bool:
    """Whether :func:`iter_questions` reads files of this name; other tables have a row a question and no id."""
    return is_saved(path) or file_format(path) == "jsonl"


def _questions(
    path: str | Path, keys: tuple[str | None, str | None, str | None], with_answers: bool
) -> tuple[list[Question], str]:
    """The questions of a file, and its SHA-256."""
    if is_saved(path):
        table, fingerprint = read_saved_table(path)
        questions = _of_table(table, keys, with_answers)
    else:
        content = read_bytes(path)
        questions, fingerprint = _of_file(path, content, keys, with_answers), hashlib.sha256(content).hexdigest()
    _check_ids(questions, path)
    return questions, fingerprint


def _of_file(
    path: str | Path, content: bytes, keys: tuple[str | None, str | None, str | None], with_answers: bool
) -> list[Question]:
    if not may_hold_questions(path):
        raise DataError(
            "questions with answers are read from SQuAD's .json or from .jsonl, each also with .gz (docs/qa.md)", path
        )
    document = _squad_document(decode(content, path), path)
    if document is None:
        return _of_table(read_table(path, content), keys, with_answers)
    if given := [key for key in keys if key is not None]:
        raise DataError(f"is SQuAD's JSON, whose keys are fixed; leave out the option that names {given[0]!r}", path)
    questions = list(_of_squad(document, path, with_answers))
    if not questions:
        raise DataError("has no question; give at least one", path)
    return questions


def _check_ids(questions: Sequence[Question], path: str | Path) -> None:
    seen = set[str]()
    for question in questions:
        if question.id in seen:
            raise DataError(f"question {question.id!r}: the id occurs twice; give each question its own", path)
        seen.add(question.id)


# --- SQuAD's JSON ---


def _squad_document(text: str, path: str | Path) -> list[Any] | None:
    """The articles of a file of SQuAD's form; None where it is JSON lines, whose first line is an object by itself."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        document = json.loads(first)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and "data" not in document:
        return None
    if document is None:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            message = f"not valid JSON: {error.msg} at character {error.colno}"
            raise DataError(message, path, error.lineno) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"not usable JSON: {error}", path) from None
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise DataError(
            f"expected SQuAD's JSON, an object with a list 'data', or one object a line, found {_shown(document)}", path
        )
    articles: list[Any] = document["data"]
    return articles


def _of_squad(articles: list[Any], path: str | Path, with_answers: bool) -> Iterator[Question]:
    for number, article in enumerate(articles):
        at = f"data[{number}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", at, path)):
            place = f"{at}.paragraphs[{p}]"
            context = paragraph.get("context") if isinstance(paragraph, dict) else None
            if not isinstance(context, str):
                raise DataError(f"{place}.context: expected text, found {_shown(context)}", path)
            for q, row in enumerate(_list(paragraph, "qas", place, path)):
                if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
                    raise DataError(f"{place}.qas[{q}]: expected an object with an 'id', found {_shown(row)}", path)
                where = _Place(path, None, str(row["id"]))
                answers, stated = (
                    (row.get("answers", MISSING), row.get("is_impossible")) if with_answers else ([], None)
                )
                yield _question(where, row.get("question"), context, answers, stated)


def _list(value: Any, key: str, place: str, path: str | Path) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{place}.{key}: expected a list, found {_shown(found)}", path)
    return found


# --- JSON lines ---


def _of_table(table: Table, keys: tuple[str | None, str | None, str | None], with_answers: bool) -> list[Question]:
    names, options = ("question", "context", "answers"), ("--text-column", "--pair-column", "--label-column")
    wanted = 3 if with_answers else 2
    columns = [
        require_column(table, key or name, option)
        for key, name, option in zip(keys[:wanted], names[:wanted], options[:wanted], strict=True)
    ]
    id_column, impossible = find_column(table, "id"), find_column(table, "is_impossible")
    questions = []
    for line, values in table.rows:
        given = MISSING if id_column is None else values[id_column]
        where = _Place(table.path, line, str(line) if given is MISSING else str(given))
        question, context, *answers = (field_value(table, line, values, column) for column in columns)
        stated = values[impossible] if with_answers and impossible is not None else None
        questions.append(_question(where, question, context, answers[0] if answers else [], stated))
    return questions


# --- one question ---


def _question(where: _Place, question: Any, context: Any, answers: Any, is_impossible: Any) -> Question:
    for key, text in (("question", question), ("context", context)):
        if not isinstance(text, str) or not text.strip():
            raise where.error(f"expected text that is not empty, found {_shown(text)}", key)
        check_characters([text], [key], where.path, where.line or 0)
    assert where.id is not None, "a question has an id before it is read"
    places = [_answer(where, context, text, start) for text, start in _pairs(where, answers)]
    if is_impossible is True and places:
        raise where.error("is_impossible is true, but there are answers; remove one of the two", "answers")
    if is_impossible is False and not places:
        raise where.error("is_impossible is false, but there is no answer; give one, or say true", "answers")
    return Question(where.id, question, context, places)


def _pairs(where: _Place, answers: Any) -> list[tuple[Any, Any]]:
    """(text, answer_start) of a list of objects, as SQuAD has them, or an object of lists, as `datasets` has them."""
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        return [(answer.get("text"), answer.get("answer_start")) for answer in answers]
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    raise where.error(
        f'expected answers as {{"text": […], "answer_start": […]}} or [{{"text": …, "answer_start": …}}, …], found '
        f"{_shown(answers)}",
        "answers",
    )


def _answer(where: _Place, context: str, text: Any, start: Any) -> tuple[int, int]:
    """[start, end) of an answer, which stands in the context where it says."""
    if not isinstance(text, str) or not text.strip() or type(start) is not int:
        raise where.error(
            f"expected the text of an answer and the character at which it starts, found {_shown(text)} and "
            f"{_shown(start)}",
            "answers",
        )
    end = start + len(text)
    if start < 0 or context[start:end] != text:
        there = context[max(0, start) : max(0, end)]
        raise where.error(
            f"the answer {_shown(text)} is not at character {start} of its context, which has {_shown(there)} there "
            f"({len(context)} characters, counted from 0); correct answer_start",
            "answers",
        )
    return start, end


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.60}"

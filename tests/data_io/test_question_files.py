"""Files of questions: SQuAD's JSON, JSON lines and datasets. Oracles: the rows that were written; texts of errors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitpress.data import Dataset, get_task, read_dataset
from bitpress.data.questions import iter_questions
from bitpress.errors import DataError

QA = get_task("qa")
CONTEXT = "Ada Lovelace wrote it in 1843 — naïvely 👩‍💻 in London."
LONDON = CONTEXT.index("London")  # in characters, of which the emoji has three


def answer(text: str, start: int | None = None) -> dict[str, Any]:
    return {"text": text, "answer_start": CONTEXT.index(text) if start is None else start}


def squad(*qas: dict[str, Any], context: Any = CONTEXT) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


WHO = {"id": "q1", "question": "Who?", "answers": [answer("Ada Lovelace"), answer("Ada")]}
WHERE = {"id": "q2", "question": "Where?", "answers": [answer("London")], "is_impossible": False}
WHY = {"id": "q3", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [answer("in")]}


def write(path: Path, document: Any) -> Path:
    text = "\n".join(map(json.dumps, document)) if isinstance(document, list) else json.dumps(document)
    path.write_text(text, encoding="utf-8")
    return path


def check(found: Dataset) -> None:
    assert found.ids == ["q1", "q2", "q3"]
    assert found.texts == ["Who?", "Where?", "Why?"]
    assert found.pairs == [CONTEXT] * 3
    assert found.answers == [["Ada Lovelace", "Ada"], ["London"], []]
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [[0, 12], [LONDON, LONDON + 6], [-1, -1]]
    assert found.label_names == ["start", "end"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_squad(name: str, indent: int | None, tmp_path: Path) -> None:
    content = json.dumps(squad(WHO, WHERE, WHY), indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    check(read_dataset(tmp_path / name, QA))
    assert [(q.id, q.question) for q in iter_questions(tmp_path / name)][1] == ("q2", "Where?")
    assert read_dataset(tmp_path / name, QA, label_names=["LABEL_0", "LABEL_1"]).label_names == ["LABEL_0", "LABEL_1"]


def flat(row: dict[str, Any]) -> dict[str, Any]:
    answers = row["answers"]
    lists = {"text": [a["text"] for a in answers], "answer_start": [a["answer_start"] for a in answers]}
    return {"id": row["id"], "question": row["question"], "context": CONTEXT, "answers": lists}


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.ndjson"])
def test_json_lines(name: str, tmp_path: Path) -> None:
    check(read_dataset(write(tmp_path / name, [flat(WHO), flat(WHERE), flat(WHY)]), QA))


def test_one_line_of_json_lines_and_rows_without_ids(tmp_path: Path) -> None:
    row = flat(WHERE)
    del row["id"]
    found = read_dataset(write(tmp_path / "d.json", [row]), QA)
    assert found.ids == ["1"]
    assert found.answers == [["London"]]


def test_other_keys_are_named(tmp_path: Path) -> None:
    row = {"ask": "Where?", "passage": CONTEXT, "gold": [answer("London")]}
    path = write(tmp_path / "d.jsonl", [row])
    found = read_dataset(path, QA, text_column="ask", pair_column="passage", label_column="gold")
    assert found.answers == [["London"]]
    with pytest.raises(
        DataError, match=r"column 'question'\): missing column; found 'ask', 'passage', 'gold'; name the"
    ):
        read_dataset(path, QA)
    with pytest.raises(DataError, match="is SQuAD's JSON, whose keys are fixed; leave out the option that names 'ask'"):
        read_dataset(write(tmp_path / "s.json", squad(WHO)), QA, text_column="ask")


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [flat(WHO), flat(WHERE), flat(WHY)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    check(read_dataset(tmp_path / "saved", QA))


def test_questions_to_predict_need_no_answers(tmp_path: Path) -> None:
    rows = [{"id": 7, "question": "Who?", "context": CONTEXT}, {"id": 8, "question": "Why?", "context": "x"}]
    found = list(iter_questions(write(tmp_path / "d.jsonl", rows)))
    assert [(q.id, q.context, q.answers) for q in found] == [("7", CONTEXT, []), ("8", "x", [])]
    hidden = {"id": "q", "question": "Who?", "is_impossible": False}
    assert next(iter_questions(write(tmp_path / "d.json", squad(hidden)))).question == "Who?"
    with pytest.raises(DataError, match=r"question 'q': expected answers as .* found nothing"):
        read_dataset(tmp_path / "d.json", QA)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            WHERE | {"answers": [answer("London", 3)]},
            r"question 'q2': the answer 'London' is not at character 3 of its context, which has ' Lovel' there "
            rf"\({len(CONTEXT)} characters, counted from 0\); correct answer_start",
        ),
        (WHERE | {"answers": [answer("London", 900)]}, r"not at character 900 of its context, which has '' there"),
        (WHERE | {"answers": [answer("London", -7)]}, r"not at character -7 of its context, which has '' there"),
        (WHERE | {"answers": [{"text": "London"}]}, "the character at which it starts, found 'London' and nothing"),
        (WHERE | {"answers": [answer(" ", 3)]}, "the character at which it starts, found ' ' and 3"),
        (WHERE | {"answers": [answer("London", True)]}, "found 'London' and True"),
        (WHERE | {"answers": "London"}, r"question 'q2': expected answers as .* found 'London'"),
        (WHERE | {"answers": {"text": ["a"], "answer_start": []}}, "expected answers as"),
        (
            WHERE | {"answers": []},
            "question 'q2': is_impossible is false, but there is no answer; give one, or say true",
        ),
        (WHY | {"answers": [answer("Ada")]}, "question 'q3': is_impossible is true, but there are answers"),
        (
            WHERE | {"question": "  "},
            r"column 'question'\): question 'q2': expected text that is not empty, found '  '",
        ),
        (WHERE | {"question": None}, "expected text that is not empty, found nothing"),
        (WHERE | {"question": "a\0b"}, "found a NUL character in the text"),
        (WHO, "question 'q1': the id occurs twice; give each question its own"),
        ({"question": "Who?"}, r"data\[0\].paragraphs\[0\].qas\[1\]: expected an object with an 'id', found"),
    ],
)
def test_what_is_wrong_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", squad(WHO, row))
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path, QA)
    assert str(caught.value).startswith(str(path))


def test_lines_of_json_lines_are_named(tmp_path: Path) -> None:
    rows = [flat(WHO), flat(WHERE) | {"answers": {"text": ["Paris"], "answer_start": [0]}}]
    with pytest.raises(DataError, match=r"d.jsonl:2 \(column 'answers'\): question 'q2': the answer 'Paris' is not at"):
        read_dataset(write(tmp_path / "d.jsonl", rows), QA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": 3}', "expected SQuAD's JSON, an object with a list 'data', or one object a line, found {'data': 3}"),
        ("[1, 2]", r"expected SQuAD's JSON, .*found \[1, 2\]"),
        ('{\n "data": [\n  {"a" 1}]}', r"d.json:3: not valid JSON: Expecting ':' delimiter at character 8"),
        ('{"data": [{"paragraphs": 1}]}', r"data\[0\].paragraphs: expected a list, found 1"),
        (
            '{"data": [{"paragraphs": [{"qas": []}]}]}',
            r"data\[0\].paragraphs\[0\].context: expected text, found nothing",
        ),
        (
            '{"data": [{"paragraphs": [{"context": "x"}]}]}',
            r"data\[0\].paragraphs\[0\].qas: expected a list, found not",
        ),
        ('{"data": []}', "has no question"),
        ("", "the file is empty"),
    ],
)
def test_files_of_another_form(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path / "d.json", QA)


def test_tables_cannot_hold_answers(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("question,context,answers\n")
    with pytest.raises(
        DataError, match=r"are read from SQuAD's .json or from .jsonl, each also with .gz \(docs/qa.md\)"
    ):
        read_dataset(tmp_path / "d.csv", QA)

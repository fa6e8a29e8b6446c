"""Question answering at the command line. Oracle: ``bitpress.load`` called directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import WORDS, make_artifact
from typer.testing import CliRunner

import bitpress
from bitpress.artifact import SpanSpec
from bitpress.cli import app
from bitpress.data import get_task, read_dataset

CONTEXT = "the film was good, " + " ".join(WORDS) + " and not bad"
ASKED = [("what was good", CONTEXT), ("who", "a short plot"), ("why " * 20, "bad end")]


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("reader") / "small", spans=SpanSpec(max_query_length=16))


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the three questions the last has no answer."""
    answers: list[list[dict[str, Any]]] = [
        [{"text": "film", "answer_start": 4}, {"text": "the film", "answer_start": 0}],
        [{"text": "short plot", "answer_start": 2}],
        [],
    ]
    rows = [
        {"context": context, "qas": [{"id": f"id{i}", "question": question, "answers": answers[i]}]}
        for i, (question, context) in enumerate(ASKED)
    ]
    path = tmp_path_factory.mktemp("data") / "dev.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": rows}]}))
    return path


def test_predict_one_object_a_line(reader: Path, squad: Path, tmp_path: Path) -> None:
    flat = tmp_path / "f.jsonl"
    rows = [{"id": i, "question": question, "context": context} for i, (question, context) in enumerate(ASKED)]
    flat.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with bitpress.load(reader) as model:
        expected = model.predict(ASKED)
    for file, ids in ((squad, ["id0", "id1", "id2"]), (flat, ["0", "1", "2"])):
        code, out, err = run("predict", reader, "--input", file, "--json")
        found = [json.loads(line) for line in out.splitlines()]
        assert (code, err) == (0, "")
        assert found == [{"id": name, **row} for name, row in zip(ids, expected, strict=True)]
    for (_, context), row in zip(ASKED, found, strict=True):
        assert row["answer"] == context[row["start"] : row["end"]] != ""
    assert [row.get("truncated") for row in found] == [None, None, True]


def test_predict_from_tables_and_arguments(reader: Path, tmp_path: Path) -> None:
    with bitpress.load(reader) as model:
        expected = model.predict(ASKED)
    code, out, _ = run("predict", reader, ASKED[0][0], "--pair", ASKED[0][1], "--json")
    assert (code, json.loads(out)) == (0, expected[0])
    (tmp_path / "f.tsv").write_text("question\tcontext\n" + "".join(f"{q}\t{c}\n" for q, c in ASKED[:2]))
    _, out, _ = run("predict", reader, "--input", tmp_path / "f.tsv", "--json")
    assert [json.loads(line) for line in out.splitlines()] == expected[:2]
    (tmp_path / "f.jsonl").write_text(json.dumps({"ask": "who", "passage": "a short plot"}) + "\n")
    keys = ("--text-column", "ask", "--pair-column", "passage")
    _, out, _ = run("predict", reader, "--input", tmp_path / "f.jsonl", *keys, "--json")
    assert json.loads(out) == {"id": "1", **expected[1]}


def test_predict_for_people(reader: Path, squad: Path, tmp_path: Path) -> None:
    with bitpress.load(reader) as model:
        rows = model.predict(ASKED)
    code, out, _ = run("predict", reader, "--input", squad)
    assert code == 0
    expected = [f"{r['answer']}\t{r['score']:.3f}\t{r['start']}\t{r['end']}\t{r['question']}" for r in rows]
    expected[2] += "\t(cut to the model's length)"
    assert out.splitlines() == expected
    shy = make_artifact(tmp_path / "shy", spans=SpanSpec(no_answer_threshold=-1e4))
    _, out, _ = run("predict", shy, "who", "--pair", "a short plot")
    assert out.startswith("(no answer)\t")
    assert out.endswith("\t0\t0\twho\n")


def test_evaluate(reader: Path, squad: Path) -> None:
    code, out, _ = run("evaluate", reader, "--data", squad, "--json")
    found = json.loads(out)
    with bitpress.load(reader) as model:
        assert found == model.evaluate(read_dataset(squad, get_task("qa")))
    assert (code, found["metric"], found["n"], found["cut_questions"]) == (0, "f1", 3, 1)
    assert found["majority"] == pytest.approx(1 / 3)
    assert found["metrics"]["no_answer/f1"] == 0  # this model always answers
    _, out, _ = run("evaluate", reader, "--data", squad)
    assert "has_answer/exact_match" in out
    assert "questions that were cut" in out


def test_evaluate_with_a_threshold(squad: Path, tmp_path: Path) -> None:
    shy = make_artifact(tmp_path / "shy", spans=SpanSpec(no_answer_threshold=-10000.5))
    _, out, _ = run("evaluate", shy, "--data", squad)
    text = " ".join(out.split())
    assert "no_answer/f1 100.00 %" in text
    assert "f1 33.33 %" in text
    assert "no_answer_threshold -1e+04" in text


def test_errors_name_the_question(reader: Path, tmp_path: Path) -> None:
    data = tmp_path / "dev.jsonl"
    row = {"id": "x7", "question": "who", "context": "a short plot", "answers": {"text": ["plot"], "answer_start": [3]}}
    data.write_text(json.dumps(row) + "\n")
    code, _, err = run("evaluate", reader, "--data", data)
    assert (code, err) == (
        2,
        f"error: {data}:1 (column 'answers'): question 'x7': the answer 'plot' is not at character 3 of its context, "
        "which has 'hort' there (12 characters, counted from 0); correct answer_start\n",
    )
    code, _, err = run("evaluate", reader, "--data", data, "--task", "classification")
    assert code == 2
    assert "was trained for question_answering" in err
    code, _, err = run("predict", reader, "who")
    assert code == 2
    assert "was trained on pairs of texts and 'who' comes alone" in err


def test_inspect(reader: Path) -> None:
    code, out, _ = run("inspect", reader, "--verify")
    assert code == 0
    assert "question_answering, f1: start, end" in " ".join(out.split())
    _, out, _ = run("inspect", reader, "--json")
    spans = {"doc_stride": 128, "max_query_length": 16, "max_answer_length": 30, "no_answer_threshold": None}
    assert json.loads(out)["task"]["spans"] == spans

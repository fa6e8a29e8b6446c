"""Entities at the command line. Oracle: ``bitpress.load`` called directly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import make_artifact
from typer.testing import CliRunner

import bitpress
from bitpress.cli import app
from bitpress.data import get_task, read_dataset

TEXTS = ["the film was good", "", "not very good, not very bad", "bad " * 60]


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("tagger") / "small", tokens=True)


def test_predict_one_object_a_line(tagger: Path, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    code, out, err = run("predict", tagger, "--input", tmp_path / "f.jsonl", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    with bitpress.load(tagger) as model:
        assert (code, found, err) == (0, model.predict(TEXTS), "")
    assert [row["text"] for row in found] == TEXTS
    assert [row.get("truncated") for row in found] == [None, None, None, True]
    entities = [(row["text"], entity) for row in found for entity in row["entities"]]
    assert entities, "this model must find something"
    for text, entity in entities:
        assert entity["text"] == text[entity["start"] : entity["end"]]
        assert entity["entity"] == "thing"


def test_predict_for_people(tagger: Path) -> None:
    code, out, _ = run("predict", tagger, *TEXTS)
    with bitpress.load(tagger) as model:
        rows = model.predict(TEXTS)
    lines = iter(out.splitlines())
    assert code == 0
    for row in rows:
        assert next(lines) == row["text"] + ("\t(cut to the model's length)" if "truncated" in row else "")
        for e in row["entities"]:
            assert next(lines) == f"  thing\t{e['score']:.3f}\t{e['start']}\t{e['end']}\t{e['text']}"
    assert next(lines, None) is None


def test_evaluate_says_what_was_not_read(tagger: Path, tmp_path: Path) -> None:
    data = tmp_path / "dev.conll"
    data.write_text("the O\nfilm B-thing\n\n" + "bad O\n" * 40)
    code, out, _ = run("evaluate", tagger, "--data", data, "--json")
    found = json.loads(out)
    with bitpress.load(tagger) as model:
        assert found == model.evaluate(read_dataset(data, get_task("ner"), label_names=model.labels))
    assert (code, found["metric"], found["n"], found["majority"], found["unread_words"]) == (0, "entity_f1", 2, 0, 10)
    _, out, _ = run("evaluate", tagger, "--data", data)
    assert "words not read" in out
    assert "recall/thing" in out


def test_errors_name_the_place(tagger: Path, tmp_path: Path) -> None:
    data = tmp_path / "dev.conll"
    data.write_text("the O\nfilm B-other\n")
    code, _, err = run("evaluate", tagger, "--data", data)
    assert (code, err) == (2, f"error: {data}:2 (column '2'): unknown entity 'other'; allowed: 'thing'\n")
    code, _, err = run("evaluate", tagger, "--data", data, "--task", "classification")
    assert code == 2
    assert "--task classification is classification, but" in err
    assert "was trained for token_classification" in err
    code, _, err = run("evaluate", tagger, "--data", data, "--label-column", "7")
    assert (code, err) == (
        2,
        f"error: {data}: --label-column is '7'; the columns of this file are numbered from 1 to 2\n",
    )


def test_inspect(tagger: Path) -> None:
    code, out, _ = run("inspect", tagger, "--verify")
    assert code == 0
    assert "token_classification, entity_f1: O, B-thing, I-thing" in " ".join(out.split())


def test_pairs_are_refused(tagger: Path) -> None:
    code, _, err = run("predict", tagger, "the film", "--pair", "was good")
    assert code == 2
    assert "was trained on single texts" in err
    with bitpress.load(tagger) as model, pytest.raises(ValueError, match="this model reads one text, not pairs"):
        model(("the film", "was good"))

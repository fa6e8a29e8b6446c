"""Vectors, and any number of labels, at the command line. Oracle: ``bitpress.load`` called directly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_artifact, make_checkpoint
from typer.testing import CliRunner

import bitpress
from bitpress.cli import app

TEXTS = ["the film was good", "", "not very good, not very bad", "bad " * 60]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("encoder") / "small", vectors=True)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("sets") / "small", label_sets=True, seed=3)


def test_vectors_to_a_file(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 20))
    code, out, err = run("predict", encoder, "--input", tmp_path / "f.jsonl", "--out", tmp_path / "v.npy")
    assert (code, out) == (0, "")
    assert "20 of 80 texts are longer than 32 tokens" in err
    assert f"80 vectors of 24 columns in {tmp_path / 'v.npy'}" in err.replace("\n", " ")
    found = np.load(tmp_path / "v.npy")
    assert (found.shape, found.dtype) == ((80, 24), np.float32)
    with bitpress.load(encoder) as model, pytest.warns(UserWarning, match="1 of 4"):
        assert np.array_equal(found[:4], model.encode(TEXTS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "v.npy"]


def test_vectors_as_json(encoder: Path) -> None:
    code, out, _ = run("predict", encoder, *TEXTS, "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    with bitpress.load(encoder) as model:
        assert rows == model.predict(TEXTS)
    assert [row.get("truncated") for row in rows] == [None, None, None, True]


def test_where_vectors_go_has_to_be_said(encoder: Path, tagger: Path, tmp_path: Path) -> None:
    code, _, err = run("predict", encoder, "the film")
    assert (code, "gives vectors; give --out FILE.npy, or --json" in err) == (2, True)
    code, _, err = run("predict", tagger, "the film", "--out", tmp_path / "v.npy")
    assert (code, "gives no vectors; leave it out" in err) == (2, True)
    code, _, err = run("predict", encoder, "the film", "--pair", "a film", "--out", tmp_path / "v.npy")
    assert (code, "was trained on single texts" in err) == (2, True)


def test_evaluate_pairs(encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.tsv"
    data.write_text("sentence1\tsentence2\tscore\ngood film\tbad film\t1\nthe end\tthe end\t5\nnew\told plot\t2\n")
    code, out, _ = run("evaluate", encoder, "--data", data, "--json")
    assert code == 0
    assert json.loads(out)["metrics"].keys() == {"spearman", "pearson"}
    data.write_text("anchor\tpositive\ngood film\tbad film\nthe end\tthe end\n")
    code, out, _ = run("evaluate", encoder, "--data", data)
    assert code == 0
    assert {"mrr", "recall@1", "recall@10"} <= set(out.split())
    data.write_text("text\ngood film\n")
    code, _, err = run("evaluate", encoder, "--data", data)
    assert (code, "evaluation needs pairs of texts, found none" in err) == (2, True)
    code, _, err = run("evaluate", encoder, "--data", data, "--pooling", "cls")
    assert (code, "--pooling is given, but an artifact has its own" in err) == (2, True)


def test_a_bare_encoder_becomes_one_of_sentences_without_a_text(tmp_path: Path) -> None:
    bare = make_checkpoint(tmp_path / "m")
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    options = ("--recipe", "int8", "--task", "embedding")
    code, out, err = run("compress", bare, *options, "--out", tmp_path / "a")
    assert (code, "smaller" in out) == (0, True), err
    code, _, _ = run("compress", bare, *options, "--pooling", "cls", "--out", tmp_path / "b")
    assert code == 0
    with bitpress.load(tmp_path / "a") as mean, bitpress.load(tmp_path / "b") as first:
        assert [mean.config.head, first.config.head] == ["mean", "cls"]
        assert mean.encode(TEXTS[:3]).shape == (3, 24)
    code, _, err = run("compress", bare, "--recipe", "int8", "--task", "ner", "--out", tmp_path / "c")
    assert (code, "--task is given without --dev" in err) == (2, True)
    code, _, err = run("compress", bare, *options, "--pooling", "median", "--out", tmp_path / "c")
    assert (code, "head is 'median'; bitpress runs" in err) == (2, True)


def test_inspect_and_labels_that_go_together(encoder: Path, tagger: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", encoder)
    assert (code, "embedding, spearman: a vector" in out) == (0, True)
    code, out, _ = run("predict", tagger, *TEXTS)
    with bitpress.load(tagger) as model:
        rows = model.predict(TEXTS)
    assert code == 0
    for line, row in zip(out.splitlines(), rows, strict=True):
        labels = ", ".join(f"{label} {row['scores'][label]:.3f}" for label in row["labels"]) or "-"
        cut = "\t(cut to the model's length)" if "truncated" in row else ""
        assert line == f"{labels}\t{row['text']}{cut}"
    assert {len(row["labels"]) for row in rows} != {1}, "this model must show that there may be none or several"
    data = tmp_path / "d.csv"
    data.write_text("text,negative,positive\ngood film,0,1\nbad end,1,0\n")
    code, out, _ = run("evaluate", tagger, "--data", data, "--json")
    assert code == 0
    assert {"micro_f1", "macro_f1", "f1/negative"} <= json.loads(out)["metrics"].keys()

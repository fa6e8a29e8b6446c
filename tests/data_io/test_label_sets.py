"""Texts with any number of labels: files and scores. Oracle: scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitpress.data import Dataset, get_task, read_dataset, score, summarize
from bitpress.data.label_set_metrics import label_set_metrics, sigmoid
from bitpress.errors import DataError

TASK = get_task("multilabel")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def read(path: Path, names: list[str] | None = None, column: str | None = None) -> Dataset:
    return read_dataset(path, TASK, label_names=names, label_column=column)


def test_three_ways_to_write_the_same_labels(tmp_path: Path) -> None:
    rows = [("x", ["b"]), ("y", []), ("z", ["c", "a", "b"])]
    lists = "".join(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in rows)
    names = "text\tlabels\n" + "".join(f"{text}\t{', '.join(labels)}\n" for text, labels in rows)
    bits = "id,text,a,b,c,length\n" + "".join(
        f"{i},{text},{','.join(str(int(name in labels)) for name in 'abc')},{5 + i}\n"
        for i, (text, labels) in enumerate(rows)
    )
    found = [
        read(write(tmp_path / "a.jsonl", lists)),
        read(write(tmp_path / "b.tsv", names)),
        read(write(tmp_path / "c.csv", bits)),
        read(tmp_path / "c.csv", column="a, b,c"),
    ]
    for data in found:
        assert data.texts == ["x", "y", "z"]
        assert data.label_names == ["a", "b", "c"]
        assert data.labels is not None
        assert data.labels.tolist() == [[0, 1, 0], [0, 0, 0], [1, 1, 1]]
        assert data.labels.dtype == np.float32
    again = read(tmp_path / "c.csv", names=["c", "a"])
    assert again.labels is not None
    assert again.labels.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert read(tmp_path / "a.jsonl", names=["d", "c", "b", "a"]).label_names == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.jsonl",
            '{"text": "x", "labels": ["a", "b"]}\n{"text": "y", "labels": 3}\n',
            r"a.jsonl:2 \(column 'labels'\): expected a list",
        ),
        ("a.jsonl", '{"text": "x", "labels": ["a", ""]}\n', r"a.jsonl:1 \(column 'labels'\): expected a list"),
        ("a.csv", "text,a,b\nx,1,0\ny,2,0\n", r"a.csv:3 \(column 'a'\): expected 0 or 1, found '2'"),
        ("a.csv", "text,a,b\nx,p,q\n", r"no labels were found among 'text', 'a', 'b'"),
        ("a.tsv", "text\tlabels\nx\tonly\n", r"found 1 label \('only'\); at least two are needed"),
    ],
)
def test_what_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, text))


def test_labels_that_the_model_does_not_know(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabels\nx\ta,b\ny\tz\n")
    with pytest.raises(DataError, match=r"a.tsv:3 \(column 'labels'\): unknown label 'z'; allowed: 'a', 'b'"):
        read(path, names=["a", "b"])
    path = write(tmp_path / "a.csv", "text,a,c\nx,1,0\n")
    with pytest.raises(DataError, match=r"\(column 'b'\): missing column; found 'text', 'a', 'c'"):
        read(path, names=["a", "b"])


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth, predicted = rng.random((30, 4)) < 0.3, rng.random((30, 4)) < 0.3
    truth[:, 2] = False  # a label that does not occur
    names = ["a", "b", "c", "d"]
    found = label_set_metrics(predicted, truth, names)
    options = {"zero_division": 0}
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="micro", **options))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", **options))
    assert found["micro_precision"] == pytest.approx(
        metrics.precision_score(truth, predicted, average="micro", **options)
    )
    assert found["micro_recall"] == pytest.approx(metrics.recall_score(truth, predicted, average="micro", **options))
    assert found["exact"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    of_labels = metrics.f1_score(truth, predicted, average=None, **options)
    assert [found[f"f1/{name}"] for name in names] == pytest.approx(of_labels.tolist())


def test_the_threshold_decides_and_the_baseline_is_one_label() -> None:
    from dataclasses import replace

    data = Dataset(["x", "y"], None, np.array([[1, 0], [1, 1]], np.float32), ["a", "b"], "f", "")
    logits = np.array([[2.0, -1.0], [0.1, 0.5]])
    found = score(TASK, logits, data)
    assert found["exact"] == 1.0
    summary = summarize(TASK, found, data, 2)
    assert (summary["metric"], summary["majority"]) == ("micro_f1", pytest.approx(2 * 2 / 5))
    assert score(replace(TASK, threshold=0.6), logits, data)["f1/a"] == pytest.approx(2 / 3)
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]

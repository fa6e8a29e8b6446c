"""Fine-tuning: a teacher that transformers loads with equal logits, knows its labels, and is not trained twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch

from bitpress.errors import DataError, RecipeError, TrainingError
from bitpress.recipes.evaluation import check_label_order
from bitpress.recipes.runner import evaluate_checkpoint, finetune
from bitpress.runtime.tokenization import Tokenizer


def test_the_teacher_learns_and_transformers_agrees_on_its_score(tiny: Any) -> None:
    """Oracle: AutoModelForSequenceClassification on the same tokens."""
    from transformers import AutoModelForSequenceClassification

    teacher, dev = tiny.teacher, tiny.dev
    score = evaluate_checkpoint(teacher, dev)
    assert score["metric"] == "accuracy"
    assert score["n"] == 120
    assert score["value"] > 0.9 > score["majority"]

    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    assert model.config.id2label == {0: "negative", 1: "positive"}
    rows = [line.split("\t") for line in dev.read_text().splitlines()[1:]]
    hits = 0
    for encoding, (_, label) in zip(
        Tokenizer.from_directory(teacher).encode([row[0] for row in rows], max_length=64), rows, strict=True
    ):
        with torch.no_grad():
            logits = model(torch.tensor([encoding.ids])).logits[0]
        hits += model.config.id2label[int(logits.argmax())] == label
    assert hits / len(rows) == score["value"]


def test_finished_is_not_repeated_and_other_settings_are_refused(tiny: Any) -> None:
    teacher = tiny.teacher
    before = (teacher / "model.safetensors").stat().st_mtime_ns
    arguments = {"train": tiny.train, "dev": tiny.dev, "out": teacher, "quiet": True}
    again = finetune(tiny.encoder, overrides=tiny_task.FAST, **arguments)
    assert again.value > 0.9
    assert (teacher / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"schedule.epochs = 10.*this one has 7.*another --out"):
        finetune(tiny.encoder, overrides=tiny_task.FAST | {"epochs": 7}, **arguments)


def test_regression_on_pairs(tmp_path: Path) -> None:
    encoder = tiny_task.write_encoder(tmp_path / "encoder")
    train = tiny_task.write_scores(tmp_path / "train.tsv", 300, seed=3)
    dev = tiny_task.write_scores(tmp_path / "dev.tsv", 80, seed=4)
    result = finetune(
        encoder, task="regression", train=train, dev=dev, out=tmp_path / "t", overrides=tiny_task.FAST, quiet=True
    )
    assert result.metric == "pearson"
    assert result.value > 0.8
    assert json.loads((tmp_path / "t" / "config.json").read_text())["problem_type"] == "regression"
    assert evaluate_checkpoint(tmp_path / "t", dev)["value"] == pytest.approx(result.value)


def test_nothing_of_another_hand_is_overwritten(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    with pytest.raises(TrainingError, match="exists and no run of bitpress is recorded"):
        finetune(tiny.encoder, train=tiny.train, dev=tiny.dev, out=tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ({"learning_rat": 1}, RecipeError, "learning_rat: no such setting"),
        ({"epochs": "x"}, RecipeError, "epochs"),
        ({"max_length": 100000}, TrainingError, "max_length is 100000; the model has 64 positions"),
    ],
)
def test_bad_settings(tiny: Any, tmp_path: Path, overrides: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        finetune(
            tiny.encoder,
            train=tiny.train,
            dev=tiny.dev,
            out=tmp_path / "out",
            overrides=overrides,
        )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run").exists()


def test_a_label_that_training_lacks_names_its_line(tiny: Any, tmp_path: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("sentence\tlabel\na film\tpositive\nthe plot\tneutral\n")
    with pytest.raises(DataError, match=r"dev.tsv:3 \(column 'label'\).*neutral"):
        finetune(tiny.encoder, train=tiny.train, dev=dev, out=tmp_path / "out")


def test_tokenizer_of_another_model_is_refused(tiny: Any, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny.encoder, encoder)
    with (encoder / "vocab.txt").open("a") as file:
        file.write("more\nwords\n")
    with pytest.raises(TrainingError, match=r"the tokenizer has .* tokens, the word embedding"):
        finetune(encoder, train=tiny.train, dev=tiny.dev, out=tmp_path / "out")


def test_label_order_check() -> None:
    """Swapped labels are named; right ones, and models that are merely bad, pass."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    right = np.eye(3)[labels] + 0.1 * rng.standard_normal((300, 3))
    check_label_order(right, labels, ["a", "b", "c"], "t")
    check_label_order(rng.standard_normal((300, 3)), labels, ["a", "b", "c"], "t")
    with pytest.raises(TrainingError, match=r"permuted.*'a' means 'b'.*'b' means 'c'.*'c' means 'a'"):
        check_label_order(right[:, [1, 2, 0]], labels, ["a", "b", "c"], "t")

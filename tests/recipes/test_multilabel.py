"""Texts with any number of labels on a tiny model, from file to answer. Oracles: transformers; losses by definition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
import transformers
from tiny_task import Learned

import bitpress
from bitpress.artifact import read_artifact
from bitpress.data import get_task, read_dataset
from bitpress.encoder import load_classifier, save_classifier
from bitpress.errors import ArtifactError, RecipeError
from bitpress.recipes.agreement import engine_vs_student
from bitpress.recipes.evaluation import evaluate_checkpoint, logits_of
from bitpress.recipes.inputs import tokenize
from bitpress.recipes.runner import compress, finetune, sensitivity
from bitpress.recipes.schema import Distillation, list_recipes
from bitpress.recipes.teaching import Teaching
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import SensitivitySettings
from bitpress.train import collate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TASK = get_task("multilabel")
LABELS = ["bad", "good"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("sets")
    train = tiny_task.write_label_sets(folder / "train.jsonl", 400, seed=1)
    dev = tiny_task.write_label_sets(folder / "dev.jsonl", 60, seed=2)
    return tiny_task.learn("multilabel", folder, train, dev, threshold=0.4, epochs=25)


def test_the_teacher_learns_and_transformers_reads_it(sets: Learned) -> None:
    assert sets.score.metric == "micro_f1"
    assert sets.score.value > 0.9 > sets.score.majority
    assert {"macro_f1", "exact", "f1/good", "f1/bad"} <= sets.score.metrics.keys()
    config = json.loads((sets.teacher / "config.json").read_text())
    assert (config["problem_type"], config["bitpress"]["threshold"]) == ("multi_label_classification", 0.4)
    assert evaluate_checkpoint(sets.teacher, sets.dev)["metrics"] == sets.score.metrics
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(sets.teacher).eval()
    ours = load_classifier(sets.teacher)
    data = read_dataset(sets.dev, TASK, label_names=LABELS)
    batch = collate(tokenize(Tokenizer.from_directory(sets.teacher), data, 64, 0), np.arange(9))
    assert batch.labels is not None
    assert batch.labels.shape == (9, 2)
    with torch.no_grad():
        output = theirs(batch.input_ids, batch.attention_mask, batch.token_type_ids, labels=batch.labels)
        logits = ours(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    torch.testing.assert_close(logits, output.logits, rtol=0, atol=1e-5)
    distill = Distillation(attention_scores=0, hidden_states=0, logits=0, labels=1)
    _, parts = Teaching(distill, ours, ours)(ours, batch)
    torch.testing.assert_close(parts["labels"], output.loss, rtol=0, atol=1e-5)


def test_a_round_trip_with_transformers(sets: Learned, tmp_path: Path) -> None:
    config = transformers.BertConfig.from_pretrained(sets.teacher)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "theirs")
    model = load_classifier(tmp_path / "theirs")
    assert model.config.is_multilabel
    save_classifier(model, tmp_path / "ours")
    assert load_classifier(tmp_path / "ours").config == model.config


def test_distillation_by_soft_labels_of_their_own(sets: Learned) -> None:
    teacher = load_classifier(sets.teacher)
    student = load_classifier(sets.encoder, id2label=LABELS, problem_type="multi_label_classification")
    data = read_dataset(sets.dev, TASK, label_names=LABELS)
    batch = collate(tokenize(Tokenizer.from_directory(sets.teacher), data, 64, 0), np.arange(7))
    distill = Distillation(attention_scores=0, hidden_states=0, logits=1, temperature=2.0)
    _, parts = Teaching(distill, student, teacher)(student, batch)
    with torch.no_grad():
        ours, theirs = (
            torch.sigmoid(m(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits.double() / 2)
            for m in (student, teacher)
        )
    expected = -(theirs * ours.log() + (1 - theirs) * (1 - ours).log()).sum(-1).mean()
    torch.testing.assert_close(parts["prediction"].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def small(sets: Learned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("small") / "small"
    return compress(sets.teacher, recipe="int8", dev=sets.dev, out=out, quiet=True)


def test_answers_are_the_labels_above_the_stored_threshold(small: Any, sets: Learned) -> None:
    assert small.teacher["value"] == sets.score.value
    task = read_artifact(small.out).config.task
    assert (task.kind, task.threshold) == ("multilabel", 0.4)
    data = read_dataset(sets.dev, TASK, label_names=LABELS)
    with bitpress.load(small.out) as model:
        assert model.evaluate(data)["metrics"] == small.artifact["metrics"]
        both, none = model(["the superb film was dull", "the film was"])
        logits = model.logits(["the superb film was dull"])[0].astype(np.float64)
    assert set(both["labels"]) == {"good", "bad"}
    assert none["labels"] == []
    assert both["scores"] == pytest.approx(dict(zip(LABELS, 1 / (1 + np.exp(-logits)), strict=True)))
    assert [both["scores"][label] for label in both["labels"]] == sorted(both["scores"].values(), reverse=True)


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes()])
def test_every_recipe(recipe: str, sets: Learned, tmp_path: Path) -> None:
    out = tiny_task.press_briefly(sets, recipe, tmp_path / "s")
    assert out.metric == "micro_f1"
    assert out.artifact["engine_vs_student"]["n"] == 60


def test_sensitivity(sets: Learned, tmp_path: Path) -> None:
    settings = SensitivitySettings(samples=2, texts=8, max_products=6, probes=2)
    found = sensitivity(sets.teacher, train=sets.train, dev=sets.dev, out=tmp_path / "s", settings=settings, quiet=True)
    assert found.measured is not None
    assert found.measured["metric"] == "micro_f1"


def test_engine_and_student_differ_where_a_set_of_labels_does(sets: Learned) -> None:
    """Of one text too, where either side has one set of labels only."""
    student, data = load_classifier(sets.teacher), read_dataset(sets.dev, TASK, label_names=LABELS)
    one = tokenize(Tokenizer.from_directory(sets.teacher), data, 16, 0).select(np.array([0]))
    logits = logits_of(student, one)
    assert engine_vs_student(logits, student, one)["different_predictions"] == 0
    assert engine_vs_student(logits * np.float32([1, -1]), student, one)["different_predictions"] == 1


def test_a_threshold_is_a_probability(sets: Learned, small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="threshold"):
        finetune(
            sets.encoder,
            task="multilabel",
            train=sets.train,
            dev=sets.dev,
            out=tmp_path / "x",
            overrides={"threshold": 1.5},
            quiet=True,
        )
    with pytest.raises(RecipeError, match="--set threshold is for multilabel; the task is classification"):
        finetune(
            sets.encoder, train=sets.train, dev=sets.dev, out=tmp_path / "x", overrides={"threshold": 0.5}, quiet=True
        )
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in Path(small.out).iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    document = json.loads((folder / "config.json").read_text())
    document["quantization_config"]["task"]["threshold"] = 0
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"task.threshold is 0; a number between 0 and 1 is expected"):
        read_artifact(folder)
    assert replace(TASK, threshold=0.4).threshold == 0.4

"""Token classification on a tiny model, from CoNLL columns to entities with character offsets.

Oracles: the student replayed in the engine's arithmetic, for every recipe; losses by their definition.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
from tiny_task import Learned

import bitpress
from bitpress.artifact import read_artifact
from bitpress.bench.worker import load_checkpoint
from bitpress.data import get_task, read_dataset
from bitpress.encoder import load_classifier, task_loss
from bitpress.errors import DataError, RecipeError, TrainingError
from bitpress.recipes.evaluation import evaluate_checkpoint, logits_of
from bitpress.recipes.inputs import tokenize, unread_note, unread_words
from bitpress.recipes.runner import augment, compress, post_training_artifact, pretrain, sensitivity
from bitpress.recipes.schema import Distillation, StudentChanges, list_recipes
from bitpress.recipes.student import make_student
from bitpress.recipes.teaching import Teaching
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import SensitivitySettings
from bitpress.train import UNLABELLED, collate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LABELS = ["O", "B-hero", "I-hero", "B-villain", "I-villain"]


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("ner")
    train = tiny_task.write_tagged(folder / "train.conll", 300, seed=1)
    dev = tiny_task.write_tagged(folder / "dev.conll", 60, seed=2)
    return tiny_task.learn("ner", folder, train, dev, epochs=15)


@pytest.fixture(scope="module")
def small(ner: Learned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("small") / "small"
    return compress(ner.teacher, recipe="int8", train=ner.train, dev=ner.dev, out=out, quiet=True)


def test_the_teacher_learns_and_reports_entities(ner: Learned) -> None:
    assert ner.score.metric == "entity_f1"
    assert ner.score.value > 0.9
    assert ner.score.majority == 0
    assert ner.score.n == 60
    assert {"entity_precision", "entity_recall", "f1/hero", "precision/villain"} <= ner.score.metrics.keys()
    config = json.loads((ner.teacher / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(config["id2label"].values()) == LABELS
    again = evaluate_checkpoint(ner.teacher, ner.dev)
    assert again["value"] == ner.score.value
    assert again["unread_words"] == 0


def test_labels_stand_at_the_first_token_of_each_word(ner: Learned, tmp_path: Path) -> None:
    (tmp_path / "d.conll").write_text(
        "the O\nsuperbdull B-hero\nthefilm I-hero\n"
    )  # two pieces each, of this vocabulary
    vocabulary = [*(ner.encoder / "vocab.txt").read_text().split(), "##dull", "##film"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    data = read_dataset(tmp_path / "d.conll", get_task("ner"), label_names=LABELS)
    encoded = tokenize(Tokenizer.from_directory(tmp_path), data, 64, 0)
    batch = collate(encoded, np.array([0]))
    assert batch.labels is not None
    assert batch.labels.tolist() == [[UNLABELLED, 0, 1, UNLABELLED, 2, UNLABELLED, UNLABELLED]]
    assert encoded.select(np.array([0])).digest() == encoded.digest()


def test_batches_pad_labels_and_the_loss_leaves_them_out(ner: Learned) -> None:
    model = load_classifier(ner.teacher)
    data = read_dataset(ner.dev, get_task("ner"), label_names=LABELS)
    encoded = tokenize(Tokenizer.from_directory(ner.teacher), data, 64, 0)
    batch = collate(encoded, np.arange(4))
    assert batch.labels is not None
    assert batch.labels.shape == batch.input_ids.shape
    assert bool((batch.labels[~batch.attention_mask] == UNLABELLED).all())
    with torch.no_grad():
        logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        loss = task_loss(logits, batch.labels, False)
    rows = batch.labels != UNLABELLED
    assert int(rows.sum()) == int(data.word_counts[:4].sum())
    expected = -logits[rows].log_softmax(-1)[torch.arange(int(rows.sum())), batch.labels[rows]].mean()
    torch.testing.assert_close(loss, expected)
    flat = logits_of(model, encoded)
    np.testing.assert_allclose(flat[: encoded.offsets[1]], logits[0, : encoded.lengths[0]], atol=1e-5)


def test_distillation_compares_logits_of_labelled_words_only(ner: Learned) -> None:
    teacher = load_classifier(ner.teacher)
    student = load_classifier(ner.encoder, id2label=LABELS, head="tokens")
    data = read_dataset(ner.dev, get_task("ner"), label_names=LABELS)
    batch = collate(tokenize(Tokenizer.from_directory(ner.teacher), data, 64, 0), np.arange(5))
    distill = Distillation(attention_scores=0, hidden_states=0, logits=1, labels=0.5)
    _, parts = Teaching(distill, student, teacher)(student, batch)
    assert batch.labels is not None
    rows = batch.labels != UNLABELLED
    with torch.no_grad():
        ours, theirs = (
            m(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits[rows] for m in (student, teacher)
        )
    soft = -(theirs.softmax(-1) * ours.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(parts["prediction"], soft)
    torch.testing.assert_close(parts["labels"], torch.nn.functional.cross_entropy(ours, batch.labels[rows]))


def test_the_artifact_scores_as_the_engine_says(small: Any, ner: Learned) -> None:
    assert small.teacher["value"] == ner.score.value
    assert abs(small.drop_points) <= 5
    check = small.artifact["engine_vs_student"]
    assert (check["arithmetic"], check["unit"]) == ("engine", "tokens")
    assert check["identical_logits"] == check["n"] > small.artifact["n"]
    assert f"{check['n']} tokens and another prediction for 0" in (Path(small.out) / "README.md").read_text()
    config = read_artifact(small.out).config
    assert (config.task.kind, config.head) == ("token_classification", "tokens")
    assert "pooler.dense.weight" not in config.tensors
    with bitpress.load(small.out) as model:
        found = model.evaluate(read_dataset(ner.dev, get_task("ner"), label_names=model.labels))
    assert found["metrics"] == small.artifact["metrics"]
    assert found["unread_words"] == 0


def test_entities_of_a_text_have_character_offsets(small: Any) -> None:
    text = "  the Superb charming film of one dull\tfilm "
    with bitpress.load(small.out) as model:
        found = model(text)
        assert model([text, "the film", ""]) == [found, [], []]
        assert model.predict([text]) == [{"text": text, "entities": found}]
        assert model([]) == []
    assert [(e["entity"], e["text"], e["start"], e["end"]) for e in found] == [
        ("hero", "Superb charming", 6, 21),
        ("villain", "dull", 34, 38),
    ]
    assert all(0.5 < e["score"] <= 1 for e in found)


def test_long_texts_are_cut_and_said_to_be(small: Any, ner: Learned, tmp_path: Path) -> None:
    long = " ".join(["the"] * 70 + ["superb"])
    with bitpress.load(small.out) as model:
        with pytest.warns(UserWarning, match="1 of 2 texts are longer than 64 tokens; the ends of those were not read"):
            assert model([long, "the superb film"])[0] == []
        assert model.predict([long])[0]["truncated"] is True
        (tmp_path / "long.conll").write_text("the O\n" * 70 + "superb B-hero\n")
        data = read_dataset(tmp_path / "long.conll", get_task("ner"), label_names=model.labels)
        found = model.evaluate(data)
    assert found["unread_words"] == 9  # 71 words, two of 64 tokens are special
    assert found["metrics"]["recall/hero"] == 0
    encoded = tokenize(Tokenizer.from_directory(ner.teacher), data, 64, 0)
    assert unread_words(data, encoded) == 9
    assert "9 of 71 words" in str(unread_note(data, encoded, 64))
    assert evaluate_checkpoint(ner.teacher, tmp_path / "long.conll")["unread_words"] == 9


def test_a_text_without_any_token_is_refused(ner: Learned, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"tokens": ["\u200b"], "tags": ["B-hero"]}) + "\n")
    data = read_dataset(tmp_path / "d.jsonl", get_task("ner"), label_names=LABELS)
    with pytest.raises(DataError, match=r"text 1, .*makes no token of any of its words; remove it"):
        tokenize(Tokenizer.from_directory(ner.teacher), data, 64, 0)


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes()])
def test_every_recipe(recipe: str, ner: Learned, tmp_path: Path) -> None:
    """The engine's logits of every token are those of the student, bit for bit."""
    out = tiny_task.press_briefly(ner, recipe, tmp_path / "s")
    assert out.metric == "entity_f1"
    assert out.artifact["engine_vs_student"]["n"] > 60


def test_an_estimate_packs_without_training(ner: Learned, tmp_path: Path) -> None:
    post_training_artifact(ner.teacher, "bibert", tmp_path / "s")
    with bitpress.load(tmp_path / "s") as model:
        assert model.task.kind == "token_classification"
        assert isinstance(model("the superb film"), list)


def test_the_teacher_is_timed_as_what_it_is(ner: Learned) -> None:
    timed = load_checkpoint(ner.teacher, threads=1)
    assert timed.forward({"ids": [[2, 5, 3], [2, 3]], "type_ids": [[0, 0, 0], [0, 0]]}).shape == (2, 3, 5)


def test_a_general_student_of_a_token_classifier(ner: Learned, tmp_path: Path) -> None:
    """Raw text has no tags, and what is written has no head."""
    (tmp_path / "corpus.txt").write_text("the superb film was dull\n" * 400)
    overrides = {"max_steps": 2, "epochs": 1, "batch_tokens": 128}
    pretrain(
        ner.teacher,
        corpus=[str(tmp_path / "corpus.txt")],
        student="1x16",
        out=tmp_path / "g",
        overrides=overrides,
        quiet=True,
    )
    assert load_classifier(tmp_path / "g").config.head == "linear"
    student = make_student(StudentChanges(init=str(tmp_path / "g")), ner.teacher, None, seed=0)
    assert student.config.classifies_tokens
    assert student.config.id2label == dict(enumerate(LABELS))


def test_sensitivity_of_a_token_classifier(ner: Learned, tmp_path: Path) -> None:
    settings = SensitivitySettings(samples=2, texts=8, max_products=6, probes=2)
    found = sensitivity(ner.teacher, train=ner.train, dev=ner.dev, out=tmp_path / "s", settings=settings, quiet=True)
    assert found.measured is not None
    assert found.measured["metric"] == "entity_f1"
    assert len(found.report.blocks) == 2


def test_heads_and_tasks_that_do_not_fit_are_refused(ner: Learned, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"task 'classification' is classification, but .* has a token_classific"):
        evaluate_checkpoint(ner.teacher, ner.dev, task="classification")
    with pytest.raises(TrainingError, match=r"task 'ner' is token_classification, but .* has a classification head"):
        evaluate_checkpoint(tiny.teacher, ner.dev, task="ner")
    with pytest.raises(RecipeError, match="task 'ner' has tagged words; augment writes variants of texts"):
        augment(train=ner.train, out=tmp_path / "a.jsonl", task="ner", mlm=ner.encoder)
    config = json.loads((ner.teacher / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for file in ner.teacher.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    names = ["O", "B-hero", "I-hero", "B-villain", "NN"]
    (other / "config.json").write_text(json.dumps(config | {"id2label": dict(enumerate(names))}))
    with pytest.raises(TrainingError, match=r"class 'NN' is no tag.*Correct id2label in the checkpoint's config.json"):
        evaluate_checkpoint(other, ner.dev)

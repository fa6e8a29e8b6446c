"""Sentence embeddings on a tiny model, from pairs of texts to vectors.

Oracles: the student replayed in the engine's arithmetic, for every recipe; losses by their definition; torch's cosines.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
import torch.nn.functional as F
from tiny_task import Learned

import bitpress
from bitpress.artifact import read_artifact
from bitpress.augment import Variation
from bitpress.bench.worker import load_checkpoint
from bitpress.data import get_task, read_dataset
from bitpress.encoder import EncoderConfig, load_classifier, load_config, model_loss, pair_loss
from bitpress.errors import DataError, RecipeError, TrainingError
from bitpress.recipes.evaluation import evaluate_checkpoint, logits_of
from bitpress.recipes.inputs import as_cosines, tokenize
from bitpress.recipes.runner import augment, compress, finetune, pack, pretrain, sensitivity
from bitpress.recipes.schema import Distillation, StudentChanges, list_recipes, load_recipe
from bitpress.recipes.student import make_student
from bitpress.recipes.teaching import Teaching
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import SensitivitySettings
from bitpress.train import collate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TASK = get_task("embedding")


@pytest.fixture(scope="module")
def similar(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp("similar")
    train = tiny_task.write_similar(folder / "train.tsv", 300, seed=1)
    dev = tiny_task.write_similar(folder / "dev.tsv", 60, seed=2)
    return tiny_task.learn("embedding", folder, train, dev)


@pytest.fixture(scope="module")
def small(similar: Learned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("small") / "small"
    return compress(similar.teacher, recipe="int8", dev=similar.dev, out=out, quiet=True)


def test_the_teacher_learns_scores_and_says_how_it_pools(similar: Learned) -> None:
    assert (similar.score.metric, similar.score.n, similar.score.majority) == ("spearman", 60, 0.0)
    assert similar.score.value > 0.8  # of two scores, ranks of cosines cannot reach 1
    assert evaluate_checkpoint(similar.teacher, similar.dev)["metrics"] == similar.score.metrics
    config = json.loads((similar.teacher / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert not {"id2label", "problem_type", "head"} & config.keys()
    assert json.loads((similar.teacher / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
    assert (load_config(similar.teacher).head, load_config(similar.teacher).normalizes) == ("mean", True)


def test_an_encoder_of_sentences_starts_what_any_encoder_does(similar: Learned, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the film was lovely\n" * 200)
    rest: dict[str, Any] = {
        "corpus": [tmp_path / "a.txt"],
        "overrides": {"max_steps": 4, "batch_tokens": 256, "max_length": 24},
        "quiet": True,
    }
    pretrain(similar.teacher, task="mlm", out=tmp_path / "mlm", **rest)
    varied = augment(tiny.train, out=tmp_path / "aug.jsonl", mlm=tmp_path / "mlm", variation=Variation(2), quiet=True)
    assert varied.written > varied.rows
    pretrain(similar.teacher, student="1x16", out=tmp_path / "general", **rest)
    student = load_classifier(tmp_path / "general", num_labels=2)
    assert (student.config.hidden_size, student.config.head) == (16, "linear")


def test_contrastive_pairs(similar: Learned, tmp_path: Path) -> None:
    train = tiny_task.write_similar(tmp_path / "train.tsv", 300, seed=3, scored=False)
    dev = tiny_task.write_similar(tmp_path / "dev.tsv", 40, seed=4, scored=False)
    before = evaluate_checkpoint(similar.encoder, dev, task="embedding", pooling="cls")
    found = finetune(
        similar.encoder,
        task="embedding",
        pooling="cls",
        train=train,
        dev=dev,
        out=tmp_path / "t",
        overrides=tiny_task.FAST,
        quiet=True,
    )
    assert found.metric == "mrr"
    assert found.metrics.keys() == {"mrr", "recall@1", "recall@10"}
    assert found.value > before["value"] + 0.05
    assert load_config(tmp_path / "t").head == "cls"
    out = compress(
        tmp_path / "t",
        recipe="ternarybert",
        train=train,
        dev=dev,
        out=tmp_path / "s",
        overrides={"max_steps": 3},
        quiet=True,
    )
    assert out.metric == "mrr"
    assert read_artifact(tmp_path / "s").config.head == "cls"
    with bitpress.load(tmp_path / "s") as model:  # the same model on the other kind of data
        assert model.evaluate(read_dataset(similar.dev, TASK))["metric"] == "spearman"


def test_a_row_is_two_texts_on_their_own(similar: Learned) -> None:
    data = read_dataset(similar.dev, TASK)
    assert data.pairs is not None
    tokenizer = Tokenizer.from_directory(similar.teacher)
    encoded = tokenize(tokenizer, data, 64, 0)
    batch = collate(encoded, np.array([3, 0]))
    assert (len(batch), batch.is_paired, batch.indices.tolist()) == (2, True, [3, 0])
    expected = tokenizer.encode([data.texts[3], data.pairs[3], data.texts[0], data.pairs[0]])
    rows = [row[mask].tolist() for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert rows == [one.ids for one in expected]
    assert not batch.token_type_ids.any()
    assert data.labels is not None
    assert batch.labels is not None
    assert batch.labels.tolist() == [data.labels[3] / 5, data.labels[0] / 5]
    assert encoded.lengths[3] == len(rows[0]) + len(rows[1])
    some = encoded.select(np.array([3, 0]))
    again = collate(some, np.array([0, 1]))
    assert torch.equal(again.input_ids, batch.input_ids)
    assert some.digest() != encoded.select(np.array([0, 3])).digest()


def test_scores_become_cosines() -> None:
    assert as_cosines(np.array([0, 2.5, 5], np.float32)).tolist() == [0, 0.5, 1]
    assert as_cosines(np.array([1, 4], np.float32)).tolist() == [0, 1]
    assert as_cosines(np.array([-1, 0.3], np.float32)).tolist() == [-1, np.float32(0.3)]
    assert as_cosines(np.array([3, 3], np.float32)).tolist() == [0, 0]


def test_losses_of_pairs() -> None:
    torch.manual_seed(0)
    vectors, scores = torch.randn(8, 5), torch.rand(4)
    first, second = vectors[0::2], vectors[1::2]
    cosines = torch.tensor([[a @ b / a.norm() / b.norm() for b in second] for a in first])
    torch.testing.assert_close(pair_loss(vectors, scores), ((cosines.diag() - scores) ** 2).mean())
    torch.testing.assert_close(pair_loss(vectors, scores, reduction="sum"), ((cosines.diag() - scores) ** 2).sum())
    expected = -(20 * cosines).log_softmax(-1).diag().mean()
    torch.testing.assert_close(pair_loss(vectors, None), expected)
    config, mask = EncoderConfig(head="mean", id2label={}), torch.ones(8, 3, dtype=torch.bool)
    torch.testing.assert_close(model_loss(config, vectors, None, mask), expected)
    with pytest.raises(AssertionError, match="only pairs of texts say something without labels"):
        model_loss(EncoderConfig(), vectors, None, mask)


def test_distillation_compares_normalized_vectors_and_their_similarities(similar: Learned) -> None:
    teacher = load_classifier(similar.teacher)
    student = load_classifier(similar.encoder, head="mean")
    encoded = tokenize(Tokenizer.from_directory(similar.teacher), read_dataset(similar.dev, TASK), 64, 0)
    batch = collate(encoded, np.arange(5))
    distill = Distillation(attention_scores=0, hidden_states=0, logits=1, labels=0.5)
    _, parts = Teaching(distill, student, teacher)(student, batch)
    with torch.no_grad():
        ours, theirs = (
            F.normalize(m(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits)
            for m in (student, teacher)
        )
    assert ours.shape == (10, 32)
    similarities = ((ours @ ours.T - theirs @ theirs.T) ** 2).mean()
    torch.testing.assert_close(parts["prediction"], (2 - 2 * (ours * theirs).sum(-1)).mean() + similarities)
    torch.testing.assert_close(parts["labels"], pair_loss(ours, batch.labels))


def test_the_artifact_encodes_what_the_engine_was_measured_on(small: Any, similar: Learned) -> None:
    assert small.teacher["value"] == similar.score.value
    assert abs(small.drop_points) <= 1
    check = small.artifact["engine_vs_student"]
    assert (check["arithmetic"], check["unit"], check["n"]) == ("engine", "texts", 120)
    assert check["identical_logits"] == 120
    config = read_artifact(small.out).config
    assert (config.task.kind, config.task.normalize, config.task.pair, config.head) == (
        "embedding",
        True,
        False,
        "mean",
    )
    assert not {"pooler.dense.weight", "classifier.weight"} & config.tensors.keys()
    data = read_dataset(similar.dev, TASK)
    with bitpress.load(small.out) as model:
        assert model.evaluate(data)["metrics"] == small.artifact["metrics"]
        vectors = model.encode(data.texts)
        assert vectors.shape == (60, 32)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        raw = model.logits(data.texts)
        np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
        assert np.array_equal(model.encode(data.texts[7]), vectors[7])
        assert np.array_equal(model(data.texts), vectors)
        assert model.predict(data.texts[:1]) == [{"text": data.texts[0], "vector": vectors[0].tolist()}]
        assert model.encode([]).shape == (0, 32)
        teacher = logits_of(load_classifier(similar.teacher), tokenize(model._tokenizer, data, 64, 0))[0::2]
        cosines = (F.normalize(torch.from_numpy(teacher)).numpy() * vectors).sum(1)
        assert cosines.min() > 0.99


def test_long_texts_are_cut_and_said_to_be(small: Any) -> None:
    with bitpress.load(small.out) as model:
        with pytest.warns(UserWarning, match="1 of 2 texts are longer than 64 tokens; the ends of those were not read"):
            model.encode(["the " * 70, "the superb film"])
        assert model.predict(["the " * 70])[0]["truncated"] is True


def test_vectors_of_other_models(small: Any, tiny: Any, tmp_path: Path) -> None:
    pack(tiny.teacher, out=tmp_path / "s")
    with (
        bitpress.load(tmp_path / "s") as model,
        pytest.raises(ValueError, match="was made for classification and gives"),
    ):
        model.encode("a")
    with bitpress.load(small.out) as model, pytest.raises(ValueError, match="this model reads one text, not pairs"):
        model.encode([("a", "b")])  # type: ignore[list-item]


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes()])
def test_every_recipe(recipe: str, similar: Learned, tmp_path: Path) -> None:
    """The engine's vectors are those of the student, bit for bit; single texts are enough where no label is used."""
    learned = similar
    if not load_recipe(recipe).uses_labels:
        train = tmp_path / "texts.jsonl"
        train.write_text("".join(json.dumps({"text": text}) + "\n" for text in read_dataset(similar.train, TASK).texts))
        learned = replace(similar, train=train)
    out = tiny_task.press_briefly(learned, recipe, tmp_path / "s", student="1x16")
    assert out.metric == "spearman"
    check = out.artifact["engine_vs_student"]
    assert check["n"] == 120
    assert check["different_predictions"] == 0


def test_packing_without_a_text(similar: Learned, tmp_path: Path) -> None:
    found = pack(similar.teacher, recipe="int8", out=tmp_path / "a")
    assert found.engine_vs_student["identical_logits"] == found.engine_vs_student["n"]
    pack(similar.encoder, recipe="int8", task="embedding", pooling="max", out=tmp_path / "b")
    heads = [read_artifact(tmp_path / name).config.head for name in "ab"]
    assert heads == ["mean", "max"]
    with pytest.raises(TrainingError, match=r"lacks classifier.bias, classifier.weight, so it answers nothing yet"):
        pack(similar.encoder, recipe="int8", out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_general_student(similar: Learned, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("the superb film was dull\n" * 400)
    overrides = {"max_steps": 2, "epochs": 1, "batch_tokens": 128}
    corpus = [str(tmp_path / "corpus.txt")]
    pretrain(similar.teacher, corpus=corpus, student="1x16", out=tmp_path / "g", overrides=overrides, quiet=True)
    assert load_classifier(tmp_path / "g").config.head == "linear"
    student = make_student(StudentChanges(init=str(tmp_path / "g")), similar.teacher, None, 0, "mean")
    assert (student.config.head, student.config.normalizes, student.classifier) == ("mean", True, None)


def test_sensitivity(similar: Learned, tmp_path: Path) -> None:
    settings = SensitivitySettings(samples=2, texts=8, max_products=6, probes=2)
    for name, scored in (("a", True), ("b", False)):
        train = tiny_task.write_similar(tmp_path / f"{name}.tsv", 40, seed=5, scored=scored)
        found = sensitivity(similar.teacher, train=train, dev=train, out=tmp_path / name, settings=settings, quiet=True)
        assert found.measured is not None
        assert found.measured["metric"] == ("spearman" if scored else "mrr")


def test_the_teacher_is_timed_as_what_it_is(similar: Learned) -> None:
    batch = {"ids": [[2, 5, 3], [2, 3]], "type_ids": [[0, 0, 0], [0, 0]]}
    model = load_classifier(similar.teacher)
    with torch.no_grad():
        expected = [model(torch.tensor([row])).logits[0].numpy() for row in batch["ids"]]
    np.testing.assert_allclose(load_checkpoint(similar.teacher, threads=1).forward(batch), expected, atol=1e-5)


def test_a_sentence_encoder_starts_other_tasks(similar: Learned, tiny: Any, tmp_path: Path) -> None:
    found = finetune(
        similar.teacher, train=tiny.train, dev=tiny.dev, out=tmp_path / "t", overrides={"max_steps": 2}, quiet=True
    )
    assert found.metric == "accuracy"
    assert load_config(tmp_path / "t").head == "linear"


def test_what_does_not_fit_is_refused(similar: Learned, tiny: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "the film"}\n')
    for call in (
        lambda: finetune(
            similar.encoder, task="embedding", train=texts, dev=similar.dev, out=tmp_path / "x", quiet=True
        ),
        lambda: compress(similar.teacher, recipe="int8", dev=texts, out=tmp_path / "x", quiet=True),
        lambda: compress(
            similar.teacher, recipe="q8bert", train=texts, dev=similar.dev, out=tmp_path / "x", quiet=True
        ),
        lambda: evaluate_checkpoint(similar.teacher, texts),
    ):
        with pytest.raises(
            DataError, match=r"texts.jsonl: has single texts, and how near vectors are .* two columns of"
        ):
            call()
    with pytest.raises(
        TrainingError, match=r"has a classification head; to make sentence embeddings of its encoder, say"
    ):
        evaluate_checkpoint(tiny.teacher, similar.dev, task="embedding")
    assert evaluate_checkpoint(tiny.teacher, similar.dev, task="embedding", pooling="mean")["n"] == 60
    with pytest.raises(TrainingError, match="pooling is 'mean', which sentence embeddings have; add --task embedding"):
        compress(tiny.teacher, recipe="int8", dev=tiny.dev, pooling="mean", out=tmp_path / "x", quiet=True)
    with pytest.raises(TrainingError, match=r"task 'classification' is classification, but .* has a embedding head"):
        evaluate_checkpoint(similar.teacher, tiny.dev, task="classification")
    with pytest.raises(RecipeError, match="task 'embedding': a variant of a text may mean something else"):
        augment(train=similar.train, out=tmp_path / "a.jsonl", task="embedding", mlm=similar.encoder)

"""Texts to predictions. Oracle: a fake engine whose outputs are a plain function of each text's ids."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from bitpress.artifact.schema import ActivationSpec, ArtifactConfig, TaskSpec
from bitpress.data import Dataset, compute_metrics, get_task
from bitpress.errors import DataError
from bitpress.runtime.pipeline import Model
from bitpress.runtime.predictions import softmax
from bitpress.runtime.tokenization import Tokenizer

VOCABULARY = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, **{f"w{i}": i + 3 for i in range(50)}}


def formula(ids: Sequence[int], type_ids: Sequence[int], classes: int) -> np.ndarray:
    """Depends on every id, its place and its segment."""
    weights = np.arange(1, len(ids) + 1) * np.asarray(ids) + 7 * np.asarray(type_ids)
    return np.array([np.sin(weights.sum() * (c + 1)) * 3 for c in range(classes)], dtype=np.float32)


class FakeEngine:
    """Keeps the sizes of the batches it was given."""

    isa, threads = "fake", 3

    def __init__(self, classes: int) -> None:
        self.classes, self.batches, self.closed = classes, list[list[int]](), False

    def forward(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> np.ndarray:
        assert ids, "an engine is never called for nothing"
        self.batches.append([len(row) for row in ids])
        return np.stack([formula(a, b, self.classes) for a, b in zip(ids, type_ids, strict=True)])

    def close(self) -> None:
        self.closed = True


def tokenizer() -> Tokenizer:
    backend = Backend(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    return Tokenizer(backend)


def model(classes: int = 3, kind: str = "classification", pair: bool = False, metric: str = "accuracy") -> Model:
    names = {str(i): f"class{i}" for i in range(classes)}
    config = ArtifactConfig({"id2label": names}, "test", ActivationSpec(), TaskSpec(kind, metric, pair), 12, {})
    return Model("some/artifact", config, tokenizer(), FakeEngine(classes))


def engine_of(loaded: Model) -> FakeEngine:
    assert isinstance(loaded._engine, FakeEngine)
    return loaded._engine


def texts(n: int, longest: int = 9) -> list[str]:
    rng = np.random.default_rng(n)
    return [" ".join(f"w{i}" for i in rng.integers(0, 50, rng.integers(0, longest))) for _ in range(n)]


def expected(text: str, classes: int = 3) -> np.ndarray:
    ids = [0, *(VOCABULARY[word] for word in text.split()), 1]
    return formula(ids, [0] * len(ids), classes)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32])
@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_logits_come_back_in_the_order_given(n: int, batch_size: int) -> None:
    loaded, given = model(), texts(n)
    logits = loaded.logits(given, batch_size=batch_size)
    assert logits.shape == (n, 3)
    assert logits.dtype == np.float32
    for text, row in zip(given, logits, strict=True):
        np.testing.assert_array_equal(row, expected(text))
    sizes = [size for batch in engine_of(loaded).batches for size in batch]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len(batch) <= batch_size for batch in engine_of(loaded).batches)
    assert len(engine_of(loaded).batches) == -(-n // batch_size)


@pytest.mark.parametrize("n", [4, 5, 9])
def test_long_lists_are_tokenized_chunk_by_chunk(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitpress.runtime.forward.CHUNK_TEXTS", 4)
    loaded, given = model(), texts(n)
    for text, row in zip(given, loaded.logits(given), strict=True):
        np.testing.assert_array_equal(row, expected(text))
    assert [len(batch) for batch in engine_of(loaded).batches] == {4: [4], 5: [4, 1], 9: [4, 4, 1]}[n]
    assert [found["text"] for found in loaded(given)] == given
    with pytest.raises(ValueError, match="lone surrogate at character 0"):
        loaded.logits([*given, "\ud800"])


def test_a_text_gives_a_dict_and_a_list_gives_a_list() -> None:
    loaded = model()
    one = loaded("w1 w2")
    assert isinstance(one, dict)
    assert list(one) == ["text", "label", "score", "scores"]
    assert one["text"] == "w1 w2"
    assert list(one["scores"]) == loaded.labels == ["class0", "class1", "class2"]
    assert sum(one["scores"].values()) == pytest.approx(1.0, abs=1e-15)
    best = int(expected("w1 w2").argmax())
    assert (one["label"], one["score"]) == (f"class{best}", one["scores"][f"class{best}"])
    assert loaded(["w1 w2"]) == [one]
    assert loaded([]) == []
    empty = loaded("")
    assert isinstance(empty, dict)
    assert empty["text"] == ""


def test_a_long_list_keeps_its_order() -> None:
    given = texts(50)
    answers = model()(given, batch_size=4)
    assert isinstance(answers, list)
    assert [answer["text"] for answer in answers] == given
    assert [answer["label"] for answer in answers] == [f"class{expected(text).argmax()}" for text in given]


def test_truncation_is_reported_only_where_it_happened() -> None:
    long = " ".join(["w1"] * 11)
    fits, cut = model()([" ".join(["w1"] * 10), long])
    assert "truncated" not in fits
    assert cut["truncated"] is True
    assert cut["text"] == long


def test_pairs() -> None:
    loaded = model(pair=True)
    one = loaded(("w1", "w2 w3"))
    assert isinstance(one, dict)
    assert (one["text"], one["pair"]) == ("w1", "w2 w3")
    ids = [0, 4, 1, 5, 6, 1]
    np.testing.assert_array_equal(loaded.logits(["w1"], ["w2 w3"])[0], formula(ids, [0, 0, 0, 1, 1, 1], 3))
    assert loaded([("w1", "w2 w3"), ("", "")])[0] == one


def test_regression_has_no_label() -> None:
    answer = model(classes=1, kind="regression", metric="pearson")("w1")
    assert answer == {"text": "w1", "label": None, "score": float(expected("w1", 1)[0]), "scores": {}}


@pytest.mark.parametrize(
    "wrong", [3, None, b"bytes", ("a",), ("a", "b", "c"), ("a", 1), {"a"}, ["a", 1], [["a"]], [None]]
)
def test_wrong_types_are_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a text \(str\), a pair of texts .* found (\w+)") as caught:
        model()(wrong)
    assert ("at position" in str(caught.value)) == isinstance(wrong, list)


def test_one_text_and_pairs_are_not_mixed_up() -> None:
    with pytest.raises(ValueError, match="this model reads one text, not pairs: call it as"):
        model()(("a", "b"))
    with pytest.raises(ValueError, match=r'this model reads pairs of texts: call it as model\(\("text", "pair"\)\)'):
        model(pair=True)("a")
    mixed: list[str | tuple[str, str]] = [("a", "b"), "c"]
    with pytest.raises(ValueError, match="at position 1"):
        model(pair=True)(mixed)
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        model()("a", batch_size=0)


def test_close_and_context_manager() -> None:
    with model() as loaded:
        engine = engine_of(loaded)
        assert (loaded.isa, loaded.threads, loaded.path) == ("fake", 3, "some/artifact")
    assert engine.closed
    loaded.close()
    with pytest.raises(ValueError, match="the model is closed"):
        loaded("w1")


def dataset(given: list[str], labels: np.ndarray | None, names: list[str]) -> Dataset:
    return Dataset(given, None, labels, names, "dev.tsv", "")


def test_evaluate() -> None:
    loaded, given = model(metric="matthews"), texts(40)
    labels = np.random.default_rng(1).integers(0, 3, 40)
    result = loaded.evaluate(dataset(given, labels, loaded.labels))
    metrics = compute_metrics(get_task("classification"), np.stack([expected(t) for t in given]), labels)
    assert result["metrics"] == metrics
    assert (result["metric"], result["value"], result["n"]) == ("matthews", metrics["matthews"], 40)
    assert result["majority"] == 0.0
    assert model().evaluate(dataset(given, labels, loaded.labels))["majority"] == np.bincount(labels).max() / 40
    assert list(metrics) == ["accuracy", "macro_f1", "matthews"]


def test_evaluate_regression() -> None:
    loaded, given = model(classes=1, kind="regression", metric="spearman"), texts(20)
    result = loaded.evaluate(dataset(given, np.linspace(0, 5, 20, dtype=np.float32), []))
    assert list(result["metrics"]) == ["spearman", "pearson"]
    assert (result["metric"], result["value"]) == ("spearman", result["metrics"]["spearman"])


def test_evaluate_refuses_data_of_another_kind() -> None:
    loaded, labels = model(), np.array([0])
    with pytest.raises(DataError, match=r"dev\.tsv: the labels \['b'\] are not the model's, in its order: \['class0'"):
        loaded.evaluate(dataset(["a"], labels, ["b"]))
    with pytest.raises(DataError, match="needs labelled rows, found none"):
        loaded.evaluate(dataset(["a"], None, loaded.labels))
    with pytest.raises(DataError, match="needs labelled rows, found none"):
        loaded.evaluate(dataset([], np.zeros(0, int), loaded.labels))
    with pytest.raises(DataError, match=r"reads pairs of texts; .*--pair-column"):
        model(pair=True).evaluate(dataset(["a"], labels, loaded.labels))


def test_softmax_is_float64_and_does_not_overflow() -> None:
    probabilities = softmax(np.array([1000.0, 1000.0, -1000.0], dtype=np.float32))
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(probabilities, [0.5, 0.5, 0.0])


@pytest.mark.parametrize("module", ["bitpress.data", "bitpress.runtime.pipeline", "bitpress.runtime.tokenization"])
def test_import_is_light(module: str, tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "pydantic", "yaml", "scipy", "sklearn")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]"

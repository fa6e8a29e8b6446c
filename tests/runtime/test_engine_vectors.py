"""Sentence embeddings in the engine. Oracles: the numpy encoder; the engine itself, one text and one thread."""

from __future__ import annotations

from itertools import product
from typing import Any

import engine_oracle as oracle
import numpy as np
import pytest
from engine_oracle import Form

from bitpress.errors import EngineError
from bitpress.families import POOLINGS
from bitpress.runtime.engine import Engine

# Keywords of tiny_model.
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"activation_range": "fp32"},
    "token": {"activation_range": "token"},
    "static, 4 bits": {"activation_range": "static", "activation_bits": 4},
    "two terms": {"form": Form("binary", 1, group_rows=1, terms=2), "word_form": Form("binary", 1, terms=2)},
    "binary": {"activation_range": "binary"},
    "elastic": {"activation_range": "binary", "attention": "softmax", "hidden_act": "relu"},
}
LENGTHS = [7, 1, 40, 13, 40, 2, 28]
CASES = list(product(FORMS, POOLINGS))


def in_order(rows: np.ndarray, pooling: str) -> np.ndarray:
    """The ABI's own words: added up in their order, then divided by their number; in fp32."""
    if pooling == "mean":
        total = rows[0].copy()
        for row in rows[1:]:
            total += row
        return total / np.float32(len(rows))
    return rows[0] if pooling == "cls" else rows.max(axis=0)


@pytest.mark.parametrize(("form", "pooling"), CASES)
def test_a_vector_is_pooled_of_its_texts_last_hidden_states(form: str, pooling: str) -> None:
    model = oracle.tiny_model(3, head=pooling, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        found, last = engine.forward(ids, types), engine.hidden_states(ids, types)[-1]
    assert found.shape == (len(LENGTHS), model.config.hidden_size)
    texts = np.split(last, np.cumsum(LENGTHS)[:-1])
    assert np.array_equal(found, np.array([in_order(text, pooling) for text in texts]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_fp32_from_ids_to_vectors(pooling: str) -> None:
    model = oracle.tiny_model(4, head=pooling, activation_range="fp32")
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        found = engine.forward(ids, types)
    expected = oracle.classify(model, oracle.hidden_states(model, ids, types)[-1], LENGTHS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("form", "pooling"), CASES)
def test_a_text_does_not_depend_on_its_batch_or_on_threads(form: str, pooling: str) -> None:
    model = oracle.tiny_model(1, head=pooling, **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine(threads=1) as engine:
        alone = np.concatenate([engine.forward([row], [kind]) for row, kind in zip(ids, types, strict=True)])
    rng = np.random.default_rng(2)
    for threads in (1, 3):
        with model.engine(threads=threads) as engine:
            for size in (2, len(ids), 300):  # the last: several groups of sequences in one call
                chosen = rng.integers(0, len(ids), size)
                assert np.array_equal(
                    engine.forward([ids[i] for i in chosen], [types[i] for i in chosen]), alone[chosen]
                )


def test_nothing_in_nothing_out() -> None:
    with oracle.tiny_model(head="mean").engine() as engine:
        assert engine.forward([]).shape == (0, 24)
        assert engine.profile([[1, 2]])["head"] > 0


@pytest.mark.parametrize("name", ["pooler.dense.bias", "classifier.bias"])
def test_pooler_and_classifier_are_refused(name: str) -> None:
    model = oracle.tiny_model(head="mean")
    with pytest.raises(EngineError, match=rf"'{name}': unknown name; a model of 2 layers has none of that name"):
        Engine(model.config, model.tensors() | {name: np.zeros(24, np.float32)})

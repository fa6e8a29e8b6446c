"""A classifier of tokens in the engine. Oracles: the numpy encoder; the engine itself, one text and one thread."""

from __future__ import annotations

from typing import Any

import engine_oracle as oracle
import numpy as np
import pytest
from engine_oracle import Form

from bitpress.errors import EngineError
from bitpress.runtime.engine import Engine

# Keywords of tiny_model.
FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"activation_range": "fp32"},
    "token": {"activation_range": "token"},
    "static": {"activation_range": "static"},
    "static, 4 bits": {"activation_range": "static", "activation_bits": 4},
    "two terms": {"form": Form("binary", 1, group_rows=1, terms=2), "word_form": Form("binary", 1, terms=2)},
    "token, heads of 27": {"activation_range": "token", "head_size": 27},
    "binary": {"activation_range": "binary"},
    "elastic": {"activation_range": "binary", "attention": "softmax", "hidden_act": "relu"},
}
LENGTHS = [7, 1, 40, 13, 40, 2, 28]


@pytest.mark.parametrize("form", FORMS)
def test_every_tokens_logits_are_the_classifier_of_its_last_hidden_state(form: str) -> None:
    model = oracle.tiny_model(3, head="tokens", **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        found, last = engine.forward(ids, types), engine.hidden_states(ids, types)[-1]
    assert found.shape == (sum(LENGTHS), 3)
    # 24 products of a few units each, whose fp32 sum is off by some 24 roundings of 2^-24.
    np.testing.assert_allclose(found, oracle.classify(model, last, LENGTHS), rtol=0, atol=2e-5)


def test_fp32_from_ids_to_logits() -> None:
    model = oracle.tiny_model(4, head="tokens", activation_range="fp32")
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        found = engine.forward(ids, types)
    expected = oracle.classify(model, oracle.hidden_states(model, ids, types)[-1], LENGTHS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_does_not_depend_on_its_batch_or_on_threads(form: str) -> None:
    model = oracle.tiny_model(1, head="tokens", **FORMS[form])
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine(threads=1) as engine:
        alone = [engine.forward([row], [kind]) for row, kind in zip(ids, types, strict=True)]
    rng = np.random.default_rng(2)
    for threads in (1, 3):
        with model.engine(threads=threads) as engine:
            for size in (2, len(ids), 300):  # the last: several groups of sequences in one call
                chosen = rng.integers(0, len(ids), size)
                found = engine.forward([ids[i] for i in chosen], [types[i] for i in chosen])
                assert np.array_equal(found, np.concatenate([alone[i] for i in chosen]))


def test_nothing_in_nothing_out() -> None:
    with oracle.tiny_model(head="tokens").engine() as engine:
        assert engine.forward([]).shape == (0, 3)
        assert engine.profile([[1, 2]])["head"] > 0


def test_a_pooler_is_refused() -> None:
    model = oracle.tiny_model(head="tokens")
    pooler = {"pooler.dense.bias": np.zeros(24, np.float32)}
    with pytest.raises(
        EngineError, match=r"'pooler.dense.bias': unknown name; a model of 2 layers has none of that name"
    ):
        Engine(model.config, model.tensors() | pooler)

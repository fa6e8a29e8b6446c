"""Attention probes. Oracle: loops over the weights that a spy saw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.quantize import ActivationPolicy, EmbeddingPolicy, Policy, WeightPolicy, apply_policy
from bitpress.recipes.probes import attention_probe, binary_entropy
from bitpress.train import EncodedDataset


def student(attention: str) -> SequenceClassifier:
    config = {
        "model_type": "bert",
        "vocab_size": 60,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "initializer_range": 0.3,
    }
    model = SequenceClassifier(EncoderConfig.from_hf(config)).eval()
    binary = Policy(
        WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("binary", attention=attention)
    )
    apply_policy(model, binary)
    return model


def texts() -> EncodedDataset:
    rng = np.random.default_rng(0)
    return EncodedDataset.from_sequences([rng.integers(1, 60, n).tolist() for n in (3, 20, 11, 30)], None, None)


def test_every_number_equals_the_loop() -> None:
    model, dataset = student("bool"), texts()
    seen: list[Tensor] = []
    for layer in model.layers:
        layer.attention.observe = lambda weights, real: seen.append(weights.clone())
    found = attention_probe(dataset)(model)  # replaces the spies
    assert all(layer.attention.observe is None for layer in model.layers)
    ones: dict[tuple[int, int], list[float]] = {}
    rows: dict[int, list[float]] = {0: [], 1: []}
    for i in range(len(dataset)):
        seen.clear()
        for layer in model.layers:
            layer.attention.observe = lambda weights, real: seen.append(weights.clone())
        ids = torch.from_numpy(dataset.input_ids[dataset.offsets[i] : dataset.offsets[i + 1]]).long()[None]
        with torch.no_grad():
            model(ids)
        for n, weights in enumerate(seen):
            for head in range(4):
                ones.setdefault((n, head), []).extend(weights[0, head].flatten().tolist())
                rows[n] += weights[0, head].mean(dim=-1).tolist()
    for (n, head), weights_seen in ones.items():
        p = sum(weights_seen) / len(weights_seen)
        assert found["attention_ones"][n][head] == pytest.approx(p, abs=1e-5)
        entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
        assert found["attention_entropy"][n][head] == pytest.approx(entropy, abs=1e-5)
    for n, shares in rows.items():
        expected = np.quantile(shares, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(found["attention_ones_a_row"][n], expected, atol=1e-5)
        assert found["attention_empty_rows"][n] == pytest.approx(np.mean([share == 0 for share in shares]), abs=1e-6)


def test_signs_of_softmax_carry_nothing_and_bi_attention_almost_a_bit() -> None:
    """BiBERT §3.2: 0 bits, and 0.9929 for fair bits of 64 dimensions."""
    everything = attention_probe(texts())(student("all"))
    assert everything["attention_ones"] == [[1.0] * 4] * 2
    assert everything["attention_entropy"] == [[0.0] * 4] * 2
    assert everything["attention_empty_rows"] == [0.0] * 2
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 512, 64, generator=generator).sign() for _ in range(2))
    p = (query @ key.transpose(1, 2) >= 0).float().mean()
    assert binary_entropy(p).item() == pytest.approx(0.9929, abs=0.002)

"""A binary student in torch and the artifact made of it, in the engine: the same decisions, so the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitpress.artifact import BinaryTensor, TaskSpec, describe, read_artifact, verify
from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError, UnsupportedModelError
from bitpress.freeze import check_freezable, freeze
from bitpress.quantize import ActivationPolicy, EmbeddingPolicy, Policy, WeightPolicy, apply_policy, encode_weights
from bitpress.runtime.engine import Engine

BINARY = Policy(WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("binary"))


def student(**changes: Any) -> SequenceClassifier:
    """Random, with biases that decide, as trained ones do; every dot product is even or odd, so many are near a tie."""
    config = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 100,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "initializer_range": 0.3,
    }
    model = SequenceClassifier(EncoderConfig.from_hf(config | changes)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    apply_policy(model, BINARY)
    return model


def frozen(model: SequenceClassifier, out: Path) -> Path:
    freeze(
        model,
        BINARY,
        out,
        recipe="bibert",
        packing="2bit",
        task=TaskSpec("classification", "accuracy", False),
        max_length=64,
        tokenizer_files={"tokenizer.json": b"{}"},
        card="",
        provenance={},
    )
    return out


@pytest.mark.parametrize(
    ("act", "head"), [("gelu", "linear"), ("gelu_new", "linear"), ("silu", "linear"), ("gelu", "relu")]
)
def test_engine_and_student_agree(tmp_path: Path, act: str, head: str) -> None:
    """Alone and in a padded batch. A value within rounding error of 0 after a LayerNorm may go either way: some 30,000
    of them a text, of which one in 10⁶ is that small, so that a text in 30 may differ."""
    model = student(hidden_act=act, head=head)
    generator = torch.Generator().manual_seed(7)
    lengths = [1, 17, 64, 40, 5, 33, 2, 60] * 3
    ids = [torch.randint(1, 50, (n,), generator=generator) for n in lengths]
    with torch.no_grad():
        alone = torch.cat([model(row[None]).logits for row in ids]).numpy()
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        together = model(padded, padded > 0).logits.numpy()
    engine = Engine.from_artifact(read_artifact(frozen(model, tmp_path / "artifact")))
    found = engine.forward([row.tolist() for row in ids])
    for expected in (alone, together):
        assert np.mean(np.abs(found - expected).max(1) < 2e-5) >= 0.9


def test_the_file_holds_what_the_student_used(tmp_path: Path) -> None:
    model = student()
    with torch.no_grad():
        model.embeddings.word.weight[3] = 0
    path = frozen(model, tmp_path / "artifact")
    artifact = read_artifact(path)
    for name, (codes, scale) in encode_weights(model).items():  # type: ignore[misc]
        stored = artifact.quantized(name)
        assert isinstance(stored, BinaryTensor)
        assert codes is not None
        assert scale is not None
        assert np.array_equal(stored.codes, codes.numpy())
        assert np.array_equal(stored.scale, scale.numpy())
    assert artifact.config.activations.scheme == "binary"
    assert describe(path)["schemes"]["binary 1 bits"]["tensors"] == 3 * 6 + 2
    assert verify(path)["ok"]


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (WeightPolicy("uniform", group="row"), ActivationPolicy("binary")),
        (WeightPolicy("fp32"), ActivationPolicy("binary")),
        (WeightPolicy("binary", group="row"), ActivationPolicy("fp32")),
    ],
)
def test_one_bit_activations_are_multiplied_by_bits(weights: WeightPolicy, activations: ActivationPolicy) -> None:
    with pytest.raises(RecipeError, match=r"weights\.scheme|activations\.scheme"):
        check_freezable(student(), Policy(weights, EmbeddingPolicy(), activations))


def test_what_the_engine_does_not_run_as_bits_is_refused() -> None:
    elastic = Policy(
        WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("elastic", bits=2)
    )
    with pytest.raises(RecipeError, match=r"activations\.bits is 2"):
        check_freezable(student(hidden_act="relu"), elastic)
    one_bit = Policy(elastic.weights, elastic.word_embedding, ActivationPolicy("elastic", bits=1))
    with pytest.raises(UnsupportedModelError, match=r"hidden_act is 'gelu': .* Set student\.hidden_act=relu"):
        check_freezable(student(), one_bit)


def test_relu_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="hidden_act is 'relu'"):
        check_freezable(student(hidden_act="relu"), BINARY)

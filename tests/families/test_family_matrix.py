"""Each family with each head and each scheme: a tiny random model, frozen and run by the engine. Oracles: transformers
for fp32, within the 1e-5 that the project promises (relative to logits above 1, which these wide weights give); for
codes the student replayed in the engine's arithmetic, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_models import CASES, POSITIONS, batch, make_checkpoint, pooled, span_logits, transformers_logits

from bitpress.artifact import SpanSpec, TaskSpec, read_artifact, verify
from bitpress.encoder import load_classifier
from bitpress.freeze import check_freezable, freeze
from bitpress.quantize import (
    ActivationPolicy,
    EmbeddingPolicy,
    Policy,
    PositionPolicy,
    WeightPolicy,
    apply_policy,
)
from bitpress.recipes.replay import replay_logits, replayable
from bitpress.recipes.student import start_from_random_tokens
from bitpress.runtime.engine import Engine
from bitpress.train import EncodedDataset

LENGTHS = [1, POSITIONS, 7, 2]

# The kind of checkpoint of transformers, what its configuration says, and the task.
HEADS: dict[str, tuple[str, dict[str, Any], TaskSpec]] = {
    "classes": ("SequenceClassification", {"num_labels": 3}, TaskSpec("classification", "accuracy", True)),
    "value": ("SequenceClassification", {"num_labels": 1}, TaskSpec("regression", "pearson", True)),
    "label sets": (
        "SequenceClassification",
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        TaskSpec("multilabel", "micro_f1", True),
    ),
    "tokens": (
        "TokenClassification",
        {"id2label": {0: "O", 1: "B-x", 2: "I-x"}},
        TaskSpec("token_classification", "entity_f1", False),
    ),
    "spans": ("QuestionAnswering", {}, TaskSpec("question_answering", "f1", True, SpanSpec())),
    "mean": ("", {}, TaskSpec("embedding", "spearman", False, normalize=True)),
    "cls": ("", {}, TaskSpec("embedding", "spearman", False, normalize=True)),
    "max": ("", {}, TaskSpec("embedding", "spearman", False)),
}


def uniform(bits: int, **weights: Any) -> Policy:
    return Policy(WeightPolicy("uniform", bits=bits, **weights), EmbeddingPolicy("uniform", bits=bits))


SCHEMES = {
    "fp32": Policy(WeightPolicy("fp32"), EmbeddingPolicy("fp32"), ActivationPolicy("fp32")),
    "int8": uniform(8, group="row"),
    "int8, static": Policy(
        WeightPolicy("uniform", group="matrix"), EmbeddingPolicy("uniform"), ActivationPolicy(range="static")
    ),
    "int4": uniform(4, group="input", group_size=32),
    "int3": uniform(3, group="row_block", groups=8, symmetric=False, bounds="mse"),
    "int2": Policy(
        WeightPolicy("uniform", bits=2, group="row", symmetric=False),
        EmbeddingPolicy("uniform", bits=4),
        ActivationPolicy(bits=4),
        position_embedding=PositionPolicy("uniform", bits=8),
    ),
    "ternary": Policy(WeightPolicy("ternary"), EmbeddingPolicy("ternary")),
    "codebook": Policy(WeightPolicy("codebook", bits=3), EmbeddingPolicy("codebook", bits=4, group="matrix")),
    "binary": Policy(WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("binary")),
    "elastic": Policy(
        WeightPolicy("binary", group="matrix"), EmbeddingPolicy("binary"), ActivationPolicy("elastic", bits=1)
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], tuple[Path, Any]]:
    """By family, head and activation function: a random checkpoint, and the transformers model."""

    @cache
    def made(case: str, head: str, hidden_act: str) -> tuple[Path, Any]:
        kind, values, _ = HEADS[head]
        path = tmp_path_factory.mktemp("model")
        function = {"activation" if case == "distilbert" else "hidden_act": hidden_act}
        if kind:
            return path, make_checkpoint(case, path, kind=kind, **values, **function)
        theirs = make_checkpoint(case, path, **function).base_model
        theirs.save_pretrained(path)
        return path, theirs

    return made


def expected_rows(theirs: Any, head: str, ids: list[list[int]], types: list[list[int]]) -> np.ndarray:
    """What the engine is to return, by transformers: a row a text, or a token."""
    rows = []
    for text, of_text in zip(ids, types, strict=True):
        tokens, kinds = torch.tensor([text]), torch.tensor([of_text])
        mask = torch.ones_like(tokens)
        if HEADS[head][2].kind == "embedding":
            with torch.no_grad():
                rows.append(pooled(theirs(input_ids=tokens).last_hidden_state, mask, head))
        elif head == "spans":
            rows.append(span_logits(theirs, tokens, mask, kinds)[0])
        else:
            rows.append(transformers_logits(theirs, tokens, mask, kinds).flatten(0, -2))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_the_engine_runs_it(case: str, head: str, scheme: str, checkpoint: Any, tmp_path: Path) -> None:
    policy, task = SCHEMES[scheme], HEADS[head][2]
    path, theirs = checkpoint(case, head, "relu" if scheme == "elastic" else "gelu")
    model = load_classifier(path, head=head if task.kind == "embedding" else None)
    assert model.fresh_tensors == ()
    apply_policy(model, policy)
    start_from_random_tokens(model, policy)
    check_freezable(model, policy)
    made = [batch(1, length) for length in LENGTHS]
    # Types of which the second half is 1, whether the family has such or not.
    ids = [tokens[0].tolist() for tokens, _, _ in made]
    types = [kinds[0].tolist() if task.pair else [0] * kinds.shape[1] for _, _, kinds in made]
    if scheme == "fp32":
        expected = expected_rows(theirs, head, ids, types)
    else:
        assert replayable(model)
        dataset = EncodedDataset.from_sequences(ids, types, None, pad_id=0)
        expected = replay_logits(model, dataset, np.arange(len(ids)))
    freeze(
        model,
        policy,
        tmp_path / "artifact",
        recipe="test",
        packing="trits" if scheme == "ternary" else "2bit",
        task=task,
        max_length=POSITIONS,
        tokenizer_files={"tokenizer.json": b"{}"},
        card="",
        provenance={},
    )
    assert verify(tmp_path / "artifact")["ok"]
    artifact = read_artifact(tmp_path / "artifact")
    assert artifact.config.max_position_embeddings == POSITIONS
    with Engine.from_artifact(artifact) as engine:
        found = engine.forward(ids, types)
    assert found.shape == expected.shape
    assert len(found) == (sum(LENGTHS) if head in ("tokens", "spans") else len(LENGTHS))
    if scheme == "fp32":
        assert (np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()
    else:
        assert np.array_equal(found, expected)
    assert np.ptp(found, axis=0).max() > 0.02  # texts are told apart

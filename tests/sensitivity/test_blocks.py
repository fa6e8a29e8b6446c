"""Blocks of an encoder. Oracle: the names of its parameters, and what apply_policy quantizes."""

from __future__ import annotations

import pytest
import tiny_curves
import torch
from torch import nn

from bitpress.errors import RecipeError
from bitpress.quantize import EmbeddingPolicy, Policy, WeightPolicy, apply_policy
from bitpress.sensitivity import Block, encoder_blocks, find_block
from bitpress.sensitivity.blocks import GRANULARITIES, block_tensors

MATRICES = ("attention.query", "attention.key", "attention.value", "attention.output", "ffn.intermediate", "ffn.output")


def test_layers_have_their_six_matrices() -> None:
    assert encoder_blocks(tiny_curves.encoder()) == tuple(
        Block(f"layers.{i}", tuple(f"layers.{i}.{name}.weight" for name in MATRICES)) for i in range(2)
    )


def test_modules() -> None:
    blocks = encoder_blocks(tiny_curves.encoder(), "module")
    assert [block.name for block in blocks] == [
        "embeddings.word",
        *(f"layers.{i}.{module}" for i in range(2) for module in ("attention", "ffn")),
        "pooler",
    ]
    assert blocks[2].parameters == ("layers.0.ffn.intermediate.weight", "layers.0.ffn.output.weight")
    every = encoder_blocks(tiny_curves.encoder(), "module", "all")
    assert [block.name for block in every if block.name not in {b.name for b in blocks}] == ["embeddings", "classifier"]


@pytest.mark.parametrize("by", ["module", "matrix"])
def test_matrices_are_what_a_policy_quantizes(by: str) -> None:
    model = tiny_curves.encoder()
    found = [name for block in encoder_blocks(model, by) for name in block.parameters]
    uniform = {"scheme": "uniform", "bits": 4}
    applied = apply_policy(model, Policy(WeightPolicy(**uniform, group="row"), EmbeddingPolicy(**uniform)))
    assert sorted(found) == sorted(r.name for r in applied.report() if r.kind == "weight" and r.scheme != "fp32")


@pytest.mark.parametrize("by", GRANULARITIES)
@pytest.mark.parametrize("include", ["matrices", "all"])
def test_names_are_prefixes_and_no_parameter_is_in_two_blocks(by: str, include: str) -> None:
    model = tiny_curves.encoder()
    blocks = encoder_blocks(model, by, include)
    names = [name for block in blocks for name in block.parameters]
    assert len(set(names)) == len(names)
    assert all(name.startswith(f"{block.name}.") for block in blocks for name in block.parameters)
    if include == "all":
        wanted = {name for name, _ in model.named_parameters() if by != "layer" or name.startswith("layers.")}
        assert set(names) == wanted


def test_what_is_not_there() -> None:
    model = tiny_curves.encoder()
    with pytest.raises(RecipeError, match="by is 'head'; allowed: layer, module, matrix"):
        encoder_blocks(model, "head")
    with pytest.raises(RecipeError, match="include is 'some'; allowed: matrices, all"):
        encoder_blocks(model, "layer", "some")
    with pytest.raises(RecipeError, match=r"no block 'layers\.9'; allowed: layers\.0, layers\.1"):
        find_block(encoder_blocks(model), "layers.9")
    with pytest.raises(RecipeError, match=r"block 'layers\.0' has the parameter 'layers\.0\.x', which"):
        block_tensors(model, Block("layers.0", ("layers.0.x",)))
    assert find_block(encoder_blocks(model), "layers.1").name == "layers.1"


def test_parameters_that_are_fixed_belong_to_no_block() -> None:
    model = tiny_curves.encoder()
    model.layers[0].ffn.output.weight.requires_grad_(False)
    assert "layers.0.ffn.output.weight" not in encoder_blocks(model)[0].parameters
    split = tiny_curves.encoder()
    linear = split.layers[0].ffn.output
    linear.second_weight = nn.Parameter(torch.zeros_like(linear.weight))
    assert "layers.0.ffn.output.second_weight" in encoder_blocks(split)[0].parameters

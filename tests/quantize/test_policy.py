"""Policies: what is accepted, and the text of what is not. Oracle: the published TernaryBERT setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from bitpress.errors import RecipeError
from bitpress.quantize import (
    ActivationPolicy,
    ActivationQuantizer,
    EmbeddingPolicy,
    Policy,
    PositionPolicy,
    TernaryQuantizer,
    UniformWeightQuantizer,
    WeightPolicy,
)


def test_default_is_ternarybert() -> None:
    policy = Policy()
    assert policy.weights.quantizer(8) == TernaryQuantizer("matrix", "twn", None)
    assert policy.word_embedding.quantizer(8) == TernaryQuantizer("row", "twn", None)
    assert policy.activations == ActivationPolicy("uniform", 8, symmetric=False, range="token", clip=None)


def test_uniform_weights_get_every_setting() -> None:
    assert WeightPolicy(scheme="uniform", group="row").quantizer(8) == UniformWeightQuantizer(
        8, True, "row", None, True
    )
    assert EmbeddingPolicy(scheme="uniform").quantizer(8) == UniformWeightQuantizer(8, True, "row", None, False)
    four = WeightPolicy(scheme="uniform", bits=4, symmetric=False, group="input", group_size=64, clip=1.5)
    assert four.quantizer(8) == UniformWeightQuantizer(4, False, "input", 64, False, 1.5)
    assert (four.stored_bits, four.shares_scale) == (4, "group of 64 inputs")
    # A size that the group does not use is left out, so that group=row is one override.
    assert WeightPolicy(scheme="uniform", group="row", group_size=64).quantizer(8) == WeightPolicy(
        scheme="uniform", group="row"
    ).quantizer(8)


def blocks(**keys: Any) -> WeightPolicy:
    return WeightPolicy(scheme="uniform", group="row_block", symmetric=False, **keys)


def test_groups_by_count_follow_the_rows_of_a_matrix() -> None:
    """Q-BERT's 128 groups are 6 rows of 768 and 24 of 3,072."""
    paper = blocks(groups=128, bits=4, bounds="mse")
    assert paper.shares_scale == "one of 128 blocks of rows"
    for rows, size in ((768, 6), (3072, 24)):
        quantizer = paper.quantizer(rows)
        assert quantizer == UniformWeightQuantizer(4, False, "row_block", size, bounds="mse")
    assert blocks(groups=128).quantizer(128) == UniformWeightQuantizer(8, False, "row")
    assert blocks(groups=1).of_rows(128).shares_scale == "matrix"
    with pytest.raises(RecipeError, match="groups is 128, which does not divide 312 rows"):
        paper.of_rows(312)
    assert blocks(groups=128, group_fit="below").of_rows(312).group_size == 3
    assert blocks(group_size=6).of_rows(768).group_size == 6
    # Of another group the number is left out, so that group=matrix is one override.
    assert WeightPolicy(scheme="uniform", group="matrix", groups=128).of_rows(312).shares_scale == "matrix"


def test_blocks_have_what_they_say_and_the_rest_from_weights() -> None:
    base = WeightPolicy(scheme="uniform", bits=2, group="row")
    policy = Policy(
        base,
        EmbeddingPolicy(scheme="uniform"),
        blocks={"layers.3.ffn.output": {"bits": 8}, "layers.3": {"bits": 4, "group": "matrix"}, "embeddings": 4},
    )
    assert policy.weights_of("layers.3.ffn.output") == replace(base, bits=8, group="matrix")
    assert policy.weights_of("layers.3.ffn.intermediate") == replace(base, bits=4, group="matrix")
    assert policy.weights_of("layers.31.ffn.output") == policy.weights_of("layers.2.ffn.output") == base
    assert policy.weights_of("embeddings.word") == EmbeddingPolicy(scheme="uniform", bits=4)
    assert policy.weights_of("embeddings.position") == PositionPolicy(bits=4)


def test_positions_are_fp32_or_uniform_by_their_own_section_and_blocks() -> None:
    assert Policy().weights_of("embeddings.position").quantizer(8) is None
    policy = Policy(position_embedding=PositionPolicy(scheme="uniform"), blocks={"embeddings.position": {"bits": 4}})
    assert policy.weights_of("embeddings.position").quantizer(8) == UniformWeightQuantizer(4, True, "row")
    assert policy.weights_of("embeddings.word") == EmbeddingPolicy()
    for scheme in ("ternary", "binary", "codebook"):
        with pytest.raises(RecipeError, match=f"position_embedding.scheme is '{scheme}'; allowed: fp32, uniform"):
            PositionPolicy(scheme=scheme)
    with pytest.raises(RecipeError, match=r"blocks.embeddings: position_embedding.scheme is 'ternary'"):
        Policy(blocks={"embeddings": {"scheme": "ternary"}})


def test_fp32_has_no_quantizer() -> None:
    assert WeightPolicy(scheme="fp32").quantizer(8) is None
    assert ActivationPolicy(scheme="fp32").quantizer("rows") is None


def test_quantizers_get_every_setting() -> None:
    assert WeightPolicy(method="twn-exact", group="row", clip=2.5).quantizer(8) == TernaryQuantizer(
        "row", "twn-exact", 2.5
    )
    quantizer = ActivationPolicy(symmetric=True, range="tensor", clip=2.5).quantizer("rows")
    assert isinstance(quantizer, ActivationQuantizer)
    assert (quantizer.bits, quantizer.symmetric, quantizer.range, quantizer.clip) == (8, True, "tensor", 2.5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: WeightPolicy(scheme="palette"),
            "weights.scheme is 'palette'; allowed: fp32, ternary, uniform, codebook, bin",
        ),
        (lambda: WeightPolicy(scheme="codebook"), "weights.bits is 8; allowed: 4, 3, 2"),
        (lambda: EmbeddingPolicy(scheme="codebook", bits=4), "word_embedding.group is 'row'; allowed: matrix"),
        (lambda: WeightPolicy(scheme="codebook", bits=4, clip=2.5), "weights.clip is 2.5; allowed: None"),
        (lambda: WeightPolicy(outliers="all"), "weights.outliers is 'all'; allowed: log_density, z, none"),
        (lambda: WeightPolicy(outliers="z"), "the threshold is -4.0 where weights.outliers is 'z'; allowed: a number"),
        (lambda: WeightPolicy(objective="l0"), "weights.objective is 'l0'; allowed: l1, l2"),
        (lambda: WeightPolicy(group="input", group_size=32), "weights.group is 'input'; allowed: matrix, row"),
        (
            lambda: WeightPolicy(scheme="uniform", group="tile"),
            "weights.group is 'tile'; allowed: matrix, row, row_block, input",
        ),
        (
            lambda: WeightPolicy(scheme="uniform", group="input"),
            "weights.group_size is None; allowed with group 'input': a multiple of 32 up to 65536",
        ),
        (
            lambda: EmbeddingPolicy(scheme="uniform", group="row_block", group_size=0),
            "word_embedding.group_size is 0; allowed with group 'row_block': an integer up to 65536",
        ),
        (lambda: WeightPolicy(bits=5), "weights.bits is 5; allowed: 8, 4, 3, 2"),
        (lambda: WeightPolicy(bounds="kl"), "weights.bounds is 'kl'; allowed: minmax, percentile, mse"),
        (lambda: WeightPolicy(percentile=40), "weights.percentile is 40; allowed: a number above 50"),
        (lambda: blocks(groups=0), "weights.groups is 0; allowed: an integer of at least 1, or null"),
        (lambda: blocks(groups=128, group_size=6), "weights.groups is 128 and group_size is 6; one says the other"),
        (lambda: blocks(group_fit="above"), "weights.group_fit is 'above'; allowed: exact, below"),
        (lambda: Policy(blocks={"layers.0": {"bit": 4}}), "blocks.layers.0 has the unknown key 'bit'; allowed: scheme"),
        (lambda: Policy(blocks={"layers.0": {"bits": 5}}), "blocks.layers.0: weights.bits is 5; allowed: 8, 4, 3, 2"),
        (lambda: Policy(blocks={"embeddings": 5}), "blocks.embeddings: word_embedding.bits is 5; allowed: 8, 4, 3, 2"),
        (lambda: Policy(blocks={"layers.0": "4"}), "blocks.layers.0 is '4'; allowed: a number of bits, or keys"),
        (lambda: WeightPolicy(symmetric=cast(Any, 1)), "weights.symmetric is 1; allowed: False, True"),
        (lambda: WeightPolicy(pair_bound=cast(Any, None)), "weights.pair_bound is None; allowed: False, True"),
        (lambda: WeightPolicy(method="laq"), "weights.method is 'laq'; allowed: twn, twn-exact, lat, lat-exact"),
        (lambda: WeightPolicy(group="tile"), "weights.group is 'tile'; allowed: matrix, row"),
        (lambda: WeightPolicy(clip=0), "weights.clip is 0; allowed: a number above 0, or null for no clipping"),
        (lambda: WeightPolicy(clip=float("nan")), "weights.clip is nan; allowed: a number above 0"),
        (lambda: ActivationPolicy(scheme="int8"), "activations.scheme is 'int8'; allowed: fp32, uniform"),
        (
            lambda: ActivationPolicy("binary", attention_centre="batch"),
            "activations.attention_centre is 'batch'; allowed: none, running",
        ),
        (lambda: ActivationPolicy(bits=2), "activations.bits is 2; allowed: 8, 4"),
        (lambda: ActivationPolicy(range="learned", symmetric=True), "activations.symmetric is True; allowed: False"),
        (lambda: ActivationPolicy(range="learned", clip=2.5), "activations.clip is 2.5; allowed: None"),
        (lambda: ActivationPolicy(range="layer"), "activations.range is 'layer'; allowed: token, static, tensor"),
        (lambda: ActivationPolicy(clip=float("inf")), "activations.clip is inf; allowed: a number above 0"),
        (lambda: EmbeddingPolicy(group="tile"), "word_embedding.group is 'tile'; allowed: matrix, row"),
        (lambda: EmbeddingPolicy(clip=cast(Any, "2.5")), "word_embedding.clip is '2.5'; allowed: a number above 0"),
        (lambda: ActivationPolicy(symmetric=cast(Any, 1)), "activations.symmetric is 1; allowed: False, True"),
        (lambda: ActivationPolicy(bits=True), "activations.bits is True; allowed: 8, 4"),
        (lambda: ActivationPolicy(range=cast(Any, ["token"])), "activations.range is ['token']; allowed: token"),
    ],
)
def test_values_are_checked(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(text)):
        make()

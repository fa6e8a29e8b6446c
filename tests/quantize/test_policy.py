"""Policies: what is accepted, and the text of what is not. Oracle: the published TernaryBERT setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import pytest

from bitpress.errors import RecipeError
from bitpress.quantize import (
    ActivationPolicy,
    ActivationQuantizer,
    EmbeddingPolicy,
    Policy,
    TernaryQuantizer,
    WeightPolicy,
)


def test_default_is_ternarybert() -> None:
    policy = Policy()
    assert policy.weights.quantizer() == TernaryQuantizer("matrix", "twn", None)
    assert policy.word_embedding.quantizer() == TernaryQuantizer("row", "twn", None)
    assert policy.activations == ActivationPolicy("uniform", 8, symmetric=False, range="token", clip=None)


def test_fp32_has_no_quantizer() -> None:
    assert WeightPolicy(scheme="fp32").quantizer() is None
    assert ActivationPolicy(scheme="fp32").quantizer() is None


def test_quantizers_get_every_setting() -> None:
    assert WeightPolicy(method="twn-exact", group="row", clip=2.5).quantizer() == TernaryQuantizer(
        "row", "twn-exact", 2.5
    )
    quantizer = ActivationPolicy(symmetric=True, range="tensor", clip=2.5).quantizer()
    assert isinstance(quantizer, ActivationQuantizer)
    assert (quantizer.bits, quantizer.symmetric, quantizer.range, quantizer.clip) == (8, True, "tensor", 2.5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: WeightPolicy(scheme="binary"), "weights.scheme is 'binary'; allowed: fp32, ternary"),
        (lambda: WeightPolicy(method="lat"), "weights.method is 'lat'; allowed: twn, twn-exact"),
        (lambda: WeightPolicy(group="tile"), "weights.group is 'tile'; allowed: matrix, row"),
        (lambda: WeightPolicy(clip=0), "weights.clip is 0; allowed: a number above 0, or null for no clipping"),
        (lambda: WeightPolicy(clip=float("nan")), "weights.clip is nan; allowed: a number above 0"),
        (lambda: ActivationPolicy(scheme="int8"), "activations.scheme is 'int8'; allowed: fp32, uniform"),
        (lambda: ActivationPolicy(bits=4), "activations.bits is 4; allowed: 8"),
        (lambda: ActivationPolicy(range="layer"), "activations.range is 'layer'; allowed: token, static, tensor"),
        (lambda: ActivationPolicy(clip=float("inf")), "activations.clip is inf; allowed: a number above 0"),
        (lambda: EmbeddingPolicy(group="tile"), "word_embedding.group is 'tile'; allowed: matrix, row"),
        (lambda: EmbeddingPolicy(clip=cast(Any, "2.5")), "word_embedding.clip is '2.5'; allowed: a number above 0"),
        (lambda: ActivationPolicy(symmetric=cast(Any, 1)), "activations.symmetric is 1; allowed: False, True"),
        (lambda: ActivationPolicy(bits=True), "activations.bits is True; allowed: 8"),
        (lambda: ActivationPolicy(range=cast(Any, ["token"])), "activations.range is ['token']; allowed: token"),
    ],
)
def test_values_are_checked(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(text)):
        make()

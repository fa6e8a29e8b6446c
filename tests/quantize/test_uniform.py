"""8-bit activations. Oracles: the numeric vectors of the TernaryBERT specification, the formulas written out for one
group in numpy fp32, and invariances that hold bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import ActivationQuantizer

KINDS = ("rows", "head_rows", "head_block", "probabilities")
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)


def sample(kind: str, batch: int = 3, length: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "rows":
        return torch.randn(batch, length, 7, generator=generator) * 2
    if kind == "probabilities":
        return torch.randn(batch, 2, length, length, generator=generator).softmax(-1)
    return torch.randn(batch, 2, length, 3, generator=generator)


def masked_probabilities(mask: Tensor, seed: int = 0) -> Tensor:
    scores = torch.randn(len(mask), 2, mask.shape[1], mask.shape[1], generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1)


def slow_group(
    x: np.ndarray, kind: str, symmetric: bool, clip: float | None, width: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(codes, x̂) of one group by the formulas, in numpy fp32."""
    f = np.float32
    x = x.astype(f)
    h, most = {8: (127, 255), 4: (7, 15)}[width]
    if clip is not None and kind != "probabilities":
        x = np.minimum(np.maximum(x, f(-clip)), f(clip))
    if kind == "probabilities":
        levels = h if symmetric else most
        scale, offset, low, high, shift, origin = f(x.max() / f(levels)), f(0), 0, levels, 0, f(0)
    elif symmetric:
        scale = f(np.abs(x).max() / f(h))
        offset, low, high, shift, origin = None, -h, h, h + 1, f(0)
    else:
        scale = f((x.max() - x.min()) / f(most))
        offset, low, high, shift, origin = f(x.min()), 0, most, 0, f(x.min())
    if not scale > 0:
        scale = f(1)
    if offset is None:
        offset = f(-(h + 1)) * scale
    codes = np.clip(np.rint((x - origin) / scale), low, high).astype(f) + f(shift)
    return codes.astype(np.uint8), scale * codes + offset


def groups(x: Tensor, kind: str, mask: Tensor | None) -> list[tuple[tuple[Any, ...], Tensor]]:
    """(index, values) of every group of real elements."""
    real = torch.ones(x.shape[0], x.shape[-2], dtype=torch.bool) if mask is None else mask
    if kind == "rows":
        return [((b, t), x[b, t]) for b in range(len(x)) for t in range(x.shape[1])]
    heads = [(b, h) for b in range(len(x)) for h in range(x.shape[1])]
    if kind == "head_block":
        return [((b, h, real[b]), x[b, h, real[b]]) for b, h in heads]
    return [((b, h, t), x[b, h, t]) for b, h in heads for t in range(x.shape[2])]


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32)


def test_vector_symmetric_clipped() -> None:
    x = torch.tensor([[-3, -1, -0.01, 0, 0.004, 0.5, 2, 4]])
    quantized = ActivationQuantizer(symmetric=True, clip=2.5)(x, "rows")
    expected = torch.tensor([[-2.5, -1.003937, -0.019685, 0, 0, 0.492126, 2.007874, 2.5]])
    torch.testing.assert_close(quantized, expected, rtol=0, atol=1e-6)


def test_vector_symmetric_and_asymmetric() -> None:
    x = torch.tensor([[-0.17, -0.1, 0, 0.05, 0.3, 1]])
    symmetric = torch.tensor([[-0.173228, -0.102362, 0, 0.047244, 0.299213, 1]])
    asymmetric = torch.tensor([[-0.17, -0.101176, -0.000235, 0.050235, 0.298, 1]])
    torch.testing.assert_close(ActivationQuantizer(symmetric=True)(x, "rows"), symmetric, rtol=0, atol=1e-6)
    torch.testing.assert_close(ActivationQuantizer()(x, "rows"), asymmetric, rtol=0, atol=1e-6)


def test_vector_probabilities() -> None:
    x = torch.tensor([[[[0.9, 0.06, 0.003, 0.0039, 0.0331]]]])
    expected = torch.tensor([[[[0.9, 0.056693, 0, 0.007087, 0.035433]]]])
    torch.testing.assert_close(ActivationQuantizer(symmetric=True)(x, "probabilities"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_vector_straight_through_mask_is_inclusive(symmetric: bool) -> None:
    x = torch.tensor([[-3, -2.5, -1, 2.5, 2.6, 1]], requires_grad=True)
    ActivationQuantizer(symmetric=symmetric, clip=2.5)(x, "rows").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clip", [None, 0.75])
@pytest.mark.parametrize("mask", [None, MASK], ids=["unpadded", "padded"])
@pytest.mark.parametrize("width", [8, 4])
def test_equals_the_formula_group_by_group(
    kind: str, symmetric: bool, clip: float | None, mask: Tensor | None, width: int
) -> None:
    x = sample(kind)
    quantizer = ActivationQuantizer(width, symmetric=symmetric, clip=clip)
    codes, _, _ = quantizer.encode(x, kind, mask)
    quantized = quantizer(x, kind, mask)
    for index, values in groups(x, kind, mask):
        expected_codes, expected = slow_group(values.numpy(), kind, symmetric, clip, width)
        np.testing.assert_array_equal(codes[index].numpy(), expected_codes)
        np.testing.assert_array_equal(quantized[index].numpy(), expected)


elements = st.one_of(
    st.sampled_from([0.0, -0.0, 0.75, -0.75, 1e-45, -3e-43]),
    st.floats(-8, 8, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        "float32", st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.just(3)), elements=elements
    ),
    st.sampled_from(KINDS),
    st.booleans(),
    st.sampled_from(["token", "tensor", "static"]),
    st.sampled_from([None, 0.75]),
    st.data(),
)
def test_forward_is_decode_of_encode(
    values: np.ndarray, kind: str, symmetric: bool, range: str, clip: float | None, data: st.DataObject
) -> None:
    x = torch.from_numpy(values)
    if kind == "probabilities":
        x = x.abs()
    if kind == "rows":
        x = x[:, 0]
    shape = (x.shape[0], x.shape[-2])
    mask = torch.from_numpy(data.draw(hnp.arrays(bool, shape)))
    mask[:, 0] = True
    quantizer = ActivationQuantizer(symmetric=symmetric, range=range, clip=clip)
    quantized = quantizer(x, kind, mask)
    codes, scale, offset = quantizer.encode(x, kind, mask)
    assert codes.dtype == torch.uint8
    assert bool((scale > 0).all())
    assert bool(quantized.isfinite().all())
    assert torch.equal(bits(quantizer.decode(codes, scale, offset)), bits(quantized))


@pytest.mark.parametrize("symmetric", [False, True])
def test_degenerate_groups(symmetric: bool) -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [-1.5, -1.5, -1.5], [1e-45, 0.0, 0.0]])
    codes, scale, offset = ActivationQuantizer(symmetric=symmetric).encode(x, "rows")
    lowest = 128 if symmetric else 0
    assert codes[0].tolist() == codes[2].tolist() == [lowest] * 3
    assert scale[0].item() == scale[2].item() == 1
    assert offset[0].item() == (-128 if symmetric else 0)
    quantized = ActivationQuantizer(symmetric=symmetric)(x, "rows")
    assert quantized[0].tolist() == quantized[2].tolist() == [0, 0, 0]
    assert quantized[1].tolist() == pytest.approx([-1.5] * 3, rel=2**-22)
    if not symmetric:
        assert quantized[1].tolist() == [-1.5] * 3  # lo itself


def test_zeros_are_positive() -> None:
    """A running minimum of −0 and a value below it: the code is 0, and 0 decodes to +0 on either path."""
    quantizer = ActivationQuantizer(range="static")
    quantizer(torch.tensor([[-0.0, 383.0]]), "rows")
    x = torch.tensor([[-0.5, -0.0, 0.0]])
    assert torch.equal(bits(quantizer.eval()(x, "rows")), torch.zeros(1, 3, dtype=torch.int32))


def test_a_group_beyond_the_clip_is_the_clip() -> None:
    quantizer = ActivationQuantizer(clip=2.5)
    assert quantizer(torch.tensor([[3.0, 9.0]]), "rows").tolist() == [[2.5, 2.5]]


@pytest.mark.parametrize("symmetric", [False, True])
def test_padded_keys_keep_probability_zero(symmetric: bool) -> None:
    x = masked_probabilities(MASK)
    quantized = ActivationQuantizer(symmetric=symmetric)(x, "probabilities", MASK)
    assert not quantized.masked_select(~MASK[:, None, None, :]).any()
    zero = ActivationQuantizer(symmetric=symmetric)(torch.zeros(1, 1, 2, 2), "probabilities")
    assert not zero.any()


def pad(x: Tensor, kind: str, mask: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """x and mask with ``extra`` padded tokens more, whose values are large."""
    mask = torch.cat([mask, torch.zeros(len(mask), extra, dtype=torch.bool)], dim=1)
    if kind == "rows":
        return torch.cat([x, torch.full((len(x), extra, x.shape[2]), 1e3)], dim=1), mask
    batch, heads, length, size = x.shape
    if kind != "probabilities":
        return torch.cat([x, torch.full((batch, heads, extra, size), -1e3)], dim=2), mask
    wider = torch.cat([x, torch.zeros(batch, heads, length, extra)], dim=3)
    return torch.cat([wider, torch.full((batch, heads, extra, length + extra), 0.9)], dim=2), mask


def real_part(x: Tensor, kind: str, mask: Tensor, length: int) -> list[Tensor]:
    """The real tokens' values, one tensor a text, cut to the first ``length`` key columns for probabilities."""
    if kind == "rows":
        return [text[real] for text, real in zip(x, mask, strict=True)]
    return [text[:, real][..., :length] for text, real in zip(x, mask, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("range", ["token", "static"])
def test_padding_changes_no_bit(kind: str, symmetric: bool, range: str) -> None:
    x = masked_probabilities(MASK) if kind == "probabilities" else sample(kind)
    length = x.shape[-1]
    short, long = (ActivationQuantizer(symmetric=symmetric, range=range) for _ in (0, 1))
    padded, padded_mask = pad(x, kind, MASK, 3)
    expected = real_part(short(x, kind, MASK), kind, MASK, length)
    found = real_part(long(padded, kind, padded_mask), kind, padded_mask, length)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)
    if range == "static":
        assert short.static_range(kind) == long.static_range(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_token_range_is_batch_invariant(kind: str, symmetric: bool) -> None:
    x = sample(kind)
    quantizer = ActivationQuantizer(symmetric=symmetric)
    together = quantizer(x, kind, MASK)
    for index in range(len(x)):
        one = slice(index, index + 1)
        assert torch.equal(quantizer(x[one], kind, MASK[one]), together[one])


@pytest.mark.parametrize("kind", KINDS)
def test_tensor_range_is_not_batch_invariant(kind: str) -> None:
    """The published range: why an artifact cannot have it."""
    x = sample(kind)
    quantizer = ActivationQuantizer(range="tensor")
    alone = torch.cat([quantizer(x[index : index + 1], kind) for index in range(len(x))])
    assert not torch.equal(alone, quantizer(x, kind))


def test_tensor_range_is_one_group() -> None:
    x = sample("head_block")
    _, expected = slow_group(x.numpy(), "head_block", True, 0.75)
    quantized = ActivationQuantizer(symmetric=True, range="tensor", clip=0.75)(x, "head_block", MASK)
    np.testing.assert_array_equal(quantized.numpy(), expected)


def test_a_text_of_padding_only_is_finite() -> None:
    quantizer = ActivationQuantizer()
    assert bool(quantizer(sample("head_block"), "head_block", torch.zeros_like(MASK)).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("range", ["token", "static", "tensor"])
def test_gradient_is_straight_through(kind: str, clip: float | None, range: str) -> None:
    x = sample(kind).requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    ActivationQuantizer(clip=clip, range=range)(x, kind, MASK).backward(upstream)
    inside = torch.ones_like(x) if clip is None or kind == "probabilities" else (x.abs() < clip).float()
    assert x.grad is not None
    assert torch.equal(x.grad, upstream * inside)


def test_input_is_left_alone() -> None:
    for kind in KINDS:
        x = sample(kind)
        ActivationQuantizer(clip=0.5)(x, kind, MASK)
        assert torch.equal(x, sample(kind))


def test_strided_input() -> None:
    """Query, key and value states arrive as transposed views."""
    view = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    for kind in ("head_rows", "head_block"):
        assert torch.equal(ActivationQuantizer()(view, kind), ActivationQuantizer()(view.contiguous(), kind))


@pytest.mark.parametrize("symmetric", [False, True])
def test_static_range_follows_the_running_average(symmetric: bool) -> None:
    quantizer = ActivationQuantizer(symmetric=symmetric, range="static", momentum=0.75)
    quantizer(torch.tensor([[-1.0, 3.0]]), "rows")
    assert (quantizer.running_min.item(), quantizer.running_max.item()) == (-1, 3)
    quantizer(torch.tensor([[-5.0, -1.0]]), "rows")
    assert (quantizer.running_min.item(), quantizer.running_max.item()) == (-2, 2)
    scale, offset = quantizer.static_range("rows")
    f = np.float32
    expected = (f(2) / f(127), f(-128) * (f(2) / f(127))) if symmetric else (f(4) / f(255), f(-2))
    assert (f(scale), f(offset)) == expected
    assert (float(f(scale)), float(f(offset))) == (scale, offset)
    quantizer.eval()
    out = quantizer(torch.tensor([[-9.0, 9.0]]), "rows")
    assert (quantizer.running_min.item(), quantizer.running_max.item()) == (-2, 2)
    assert out.tolist()[0] == pytest.approx([-2, 2], rel=1e-6)  # saturated


def test_static_range_of_probabilities_begins_at_zero() -> None:
    x = sample("probabilities")
    for symmetric, levels in ((False, 255), (True, 127)):
        quantizer = ActivationQuantizer(symmetric=symmetric, range="static")
        quantizer(x, "probabilities")
        assert quantizer.static_range("probabilities") == ((x.amax() / torch.tensor(float(levels))).item(), 0.0)


def test_static_range_travels_in_the_state() -> None:
    trained, fresh = ActivationQuantizer(range="static"), ActivationQuantizer(range="static")
    trained(sample("rows"), "rows")
    fresh.load_state_dict(trained.state_dict())
    assert fresh.static_range("rows") == trained.static_range("rows")
    assert not ActivationQuantizer(range="token").state_dict()


def test_static_range_needs_a_batch() -> None:
    quantizer = ActivationQuantizer(range="static").eval()
    for use in (lambda: quantizer(sample("rows"), "rows"), lambda: quantizer.static_range("rows")):
        with pytest.raises(TrainingError, match="has not seen a batch; run at least one forward pass in training mode"):
            use()
    quantizer.train()
    with pytest.raises(TrainingError):  # padding only
        quantizer(sample("rows"), "rows", torch.zeros_like(MASK))


def test_pooled_rows_take_the_batch_mask() -> None:
    """[B, H] is the first token of each text: the [B, T] mask has nothing to say about it."""
    x = sample("rows")[:, 0]
    quantizer = ActivationQuantizer(range="static")
    quantizer(x, "rows", MASK)
    assert quantizer.running_max == x.max()


@pytest.mark.parametrize("shape", [(0, 5, 7), (1, 1, 1)])
def test_smallest_inputs(shape: tuple[int, ...]) -> None:
    assert ActivationQuantizer()(torch.ones(shape), "rows").shape == shape


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": 2}, "bits is 2; allowed: 8, 4"),
        ({"range": "channel"}, "range is 'channel'; allowed: token, static, tensor"),
        ({"clip": -1.0}, "clip is -1.0; allowed: a number above 0"),
        ({"momentum": 1.0}, "momentum is 1.0; allowed: at least 0 and below 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        ActivationQuantizer(**arguments)


def test_kind_is_checked() -> None:
    with pytest.raises(ValueError, match="kind is 'columns'; it must be one of rows"):
        ActivationQuantizer()(torch.ones(2, 2), "columns")

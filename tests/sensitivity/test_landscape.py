"""Attention divergence, loss landscape and plots. Oracles: formulas written out over one text at a time, the quadratic
that a Hessian predicts, an XML parser."""

from __future__ import annotations

import math
import xml.dom.minidom

import numpy as np
import pytest
import scipy.special
import tiny_curves
import torch

from bitpress.errors import RecipeError
from bitpress.quantize import ActivationPolicy, EmbeddingPolicy, Policy, WeightPolicy, apply_policy
from bitpress.sensitivity import attention_kl, encoder_blocks, find_block, group_wise, landscape, quantize_in_place
from bitpress.sensitivity.losses import sample_batches, summed_loss
from bitpress.sensitivity.plots import bar_chart, contour, heat_map, surface


def test_divergence_of_equal_models_is_zero() -> None:
    found = attention_kl(tiny_curves.encoder(), tiny_curves.encoder(), tiny_curves.texts(9))
    assert found.shape == (2, 2)
    assert np.abs(found).max() < 1e-15


def test_divergence_is_the_mean_over_real_rows() -> None:
    full, student, data = tiny_curves.encoder(), tiny_curves.encoder(), tiny_curves.texts(9)
    quantize_in_place(student, encoder_blocks(student), group_wise(3, 2))
    totals, rows = np.zeros((2, 2)), 0
    for i in range(len(data)):  # one by one, so nothing is padded
        batch = sample_batches(data, np.array([i]))[0]
        with torch.no_grad():
            scores = [model(batch.input_ids, collect=True).attention_scores for model in (full, student)]
        for layer in range(2):
            p, q = (scipy.special.softmax(s[layer][0].double().numpy(), axis=-1) for s in scores)
            totals[layer] += scipy.special.rel_entr(p, q).sum(axis=(1, 2))
        rows += batch.input_ids.shape[1]
    np.testing.assert_allclose(attention_kl(full, student, data), totals / rows, rtol=1e-4, atol=1e-7)
    few = np.array([1, 5])
    alone = [attention_kl(full, student, data, np.array([i])) * data.lengths[i] for i in few]
    expected = sum(alone) / data.lengths[few].sum()
    np.testing.assert_allclose(attention_kl(full, student, data, few), expected, rtol=1e-4, atol=1e-7)


def test_divergence_sees_quantized_probabilities_and_clips_what_became_zero() -> None:
    full, student, data = tiny_curves.encoder(), tiny_curves.encoder(), tiny_curves.texts(6)
    with torch.no_grad():
        for model in (full, student):
            model.layers[0].attention.query.weight *= 12  # peaks: small probabilities that 4 bits make 0
    # A probability p < 1e-12 adds p·log(p / 1e-12) ≥ −1e-12/e, and a row has at most 9.
    assert np.abs(attention_kl(full, student, data)).max() < 9e-12
    fp32 = WeightPolicy("fp32"), EmbeddingPolicy("fp32")
    apply_policy(student, Policy(*fp32, ActivationPolicy(bits=4)))
    after = attention_kl(full, student, data)
    assert after[0].min() > 1e-3
    assert np.isfinite(after).all()


def test_more_groups_move_attention_less() -> None:
    full, data = tiny_curves.encoder(hidden_size=16, intermediate_size=32), tiny_curves.texts(9)
    means = []
    for groups in (16, 1):
        student = tiny_curves.encoder(hidden_size=16, intermediate_size=32)
        quantize_in_place(student, encoder_blocks(student), group_wise(4, groups))
        means.append(float(attention_kl(full, student, data).mean()))
    assert means[0] < means[1]


def test_attention_that_cannot_be_compared() -> None:
    data = tiny_curves.texts(2)
    with pytest.raises(RecipeError, match="2 layers of 2 heads and the other one 1 of 2"):
        attention_kl(tiny_curves.encoder(), tiny_curves.encoder(num_hidden_layers=1), data)
    binary = tiny_curves.encoder()
    apply_policy(binary, Policy(activations=ActivationPolicy("binary")))
    with pytest.raises(RecipeError, match="attention weights are bits, not probabilities"):
        attention_kl(tiny_curves.encoder(), binary, data)


def test_the_landscape_is_the_loss_and_curves_as_the_eigenvalues_say() -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    block = find_block(encoder_blocks(model, "matrix"), "pooler.dense")
    told: list[tuple[int, int]] = []
    span = 0.02  # small enough for a quadratic, large enough for fp32
    found = landscape(model, data, block, grid=3, span=span, progress=lambda *done: told.append(done))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert told[-1] == (9, 9)
    assert found.texts == 8
    assert found.steps == pytest.approx((-span, 0.0, span))
    batches = sample_batches(data, np.arange(8))
    with torch.no_grad():
        middle = float(sum(summed_loss(model.config)(model, batch) for batch in batches)) / 8
    assert found.loss[1][1] == pytest.approx(middle, rel=1e-6)
    along = [(found.loss[0][1] + found.loss[2][1]), (found.loss[1][0] + found.loss[1][2])]
    for value, ends in zip(found.eigenvalues, along, strict=True):
        assert (ends - 2 * middle) / span**2 == pytest.approx(value, rel=0.05, abs=5e-3)
    assert abs(found.eigenvalues[0]) >= abs(found.eigenvalues[1])
    lines = found.as_csv().splitlines()
    assert lines[0] == "e1,e2,loss"
    assert [float(x) for x in lines[1 + 5].split(",")] == pytest.approx([0.0, span, found.loss[1][2]])
    assert landscape(model, data, block, grid=3, span=span) == found


@pytest.mark.parametrize(
    ("option", "text"), [({"grid": 4}, "grid is 4; allowed: an odd"), ({"span": 0.0}, "span is 0.0")]
)
def test_landscape_options(option: dict[str, float], text: str) -> None:
    model = tiny_curves.encoder()
    with pytest.raises(RecipeError, match=text):
        landscape(model, tiny_curves.texts(2), encoder_blocks(model)[0], **option)  # type: ignore[arg-type]


def test_bars_are_as_long_as_their_values() -> None:
    picture = bar_chart("a < b", ["x", "y & z"], [1.0, 4.0], [None, 1.0], ["note"])
    root = xml.dom.minidom.parseString(picture)
    bars = [e for e in root.getElementsByTagName("rect") if e.getAttribute("fill") == "#4c78a8"]
    widths = [float(e.getAttribute("width")) for e in bars]
    assert widths[1] == pytest.approx(4 * widths[0], abs=0.3)
    texts = [e.firstChild.nodeValue for e in root.getElementsByTagName("text")]
    assert {"a < b", "x", "y & z", "note", "5"} <= set(texts)  # 5 is where the longest error ends
    assert picture == bar_chart("a < b", ["x", "y & z"], [1.0, 4.0], [None, 1.0], ["note"])
    xml.dom.minidom.parseString(bar_chart("nothing", ["x"], [0.0], [None]))


def test_heat_map_has_a_cell_a_value() -> None:
    values = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    root = xml.dom.minidom.parseString(heat_map("t", values, ["r1", "r2"], ["1", "2", "3"], 2))
    fills = [e.getAttribute("fill") for e in root.getElementsByTagName("rect")][1:7]
    assert (fills[0], fills[5], len(set(fills))) == ("#440154", "#fde725", 6)
    xml.dom.minidom.parseString(heat_map("flat", [[1.0, 1.0], [1.0, 1.0]], ["", ""], ["", ""], 3))


def test_a_surface_is_as_high_as_its_values() -> None:
    """One raised corner: its face is the last but one to be lifted, and the corner nearest to the eye lies lowest."""
    values = [[0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    picture = surface("a < b", values, ("down", "across"), ("-1", "1"))
    root = xml.dom.minidom.parseString(picture)
    faces = [
        [tuple(map(float, point.split(","))) for point in e.getAttribute("points").split()]
        for e in root.getElementsByTagName("polygon")
    ]
    assert len(faces) == 4
    far, right, left, near = faces  # far to near, so that the near ones hide the far ones
    flat = surface("a < b", [[0.0] * 3] * 3, ("down", "across"), ("-1", "1"))
    level = [e.getAttribute("points") for e in xml.dom.minidom.parseString(flat).getElementsByTagName("polygon")]
    lifted = tuple(map(float, level[1].split()[1].split(",")))  # row 0, column 2
    assert right[1] == (lifted[0], pytest.approx(lifted[1] - 170, abs=0.11))
    assert far[1] == right[0]
    assert left[1] == near[0]
    assert near[2][1] == max(y for face in faces for _, y in face)
    assert right[1][0] > far[0][0] > left[3][0]  # columns to the right, rows to the left
    place = {e.firstChild.nodeValue: float(e.getAttribute("x")) for e in root.getElementsByTagName("text")}
    assert place["across"] < place["1"] < place["down"]


def test_contours_lie_where_the_values_are() -> None:
    size = 21
    bowl = [[math.hypot(i - 10, j - 10) for j in range(size)] for i in range(size)]
    pieces = contour(bowl, 6.5)
    for piece in pieces:
        for y, x in piece:
            assert math.hypot(y - 10, x - 10) == pytest.approx(6.5, abs=0.05)
    # Every end of a piece is the end of exactly one other: the circle is closed.
    ends = [(round(y, 9), round(x, 9)) for piece in pieces for y, x in piece]
    assert {ends.count(end) for end in ends} == {2}
    assert contour(bowl, 99.0) == []

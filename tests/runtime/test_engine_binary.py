"""Binary models in the engine. Oracles: engine_oracle.binary_layer, whose decisions are exact integers, and for elastic
models elastic_oracle.elastic_layer, whose decisions have the engine's roundings.

Each layer is compared on the engine's own previous state. The one decision that floats have a part in is the bit of
the LayerNorm after attention: a token with a value there nearer to its threshold than the engine's rounding is counted,
not compared.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import elastic_oracle
import engine_oracle as oracle
import numpy as np
import pytest
from test_engine_numerics import ATTENTION, FEW, MANY, artifact_config, artifact_tensors

from bitpress.artifact import TensorSpec, read_artifact, write_artifact
from bitpress.errors import EngineError
from bitpress.runtime.engine import Engine
from bitpress.runtime.native import OPERATIONS

# Values of magnitude up to 16 after some 300 roundings of 2^-24 (a sum of 300 columns, its mean and variance), which
# add up like their square root: 17 * 16 * 6e-8 = 1.6e-5.
ROUNDING = 2e-5
LENGTHS = [1, 17, 64, 200]

SIZES: dict[str, dict[str, Any]] = {
    "heads of 26": {"hidden": 312, "heads": 12, "intermediate": 1200},
    "heads of 32": {"hidden": 96, "heads": 3, "intermediate": 130},
    "heads of 64": {"hidden": 128, "heads": 2, "intermediate": 200},
    "heads of 7": {"hidden": 35, "heads": 5, "intermediate": 77},
    "heads of 1": {"hidden": 9, "heads": 9, "intermediate": 5},
    "heads of 100": {"hidden": 100, "heads": 1, "intermediate": 64},
}


def binary_model(seed: int = 0, **sizes: Any) -> oracle.TinyModel:
    return oracle.tiny_model(seed, activation_range="binary", **({"positions": 200} | sizes))


def elastic_model(seed: int = 0, **sizes: Any) -> oracle.TinyModel:
    return binary_model(seed, attention="softmax", hidden_act="relu", **sizes)


def check(model: oracle.TinyModel, lengths: list[int], threads: int | None = None) -> None:
    is_elastic = model.config.attention == "softmax"
    layer = elastic_oracle.elastic_layer if is_elastic else oracle.binary_layer
    classify = elastic_oracle.classify if is_elastic else oracle.classify
    ids, types = oracle.random_batch(model, lengths)
    with model.engine(threads) as engine:
        states, logits = engine.hidden_states(ids, types), engine.forward(ids, types)
    np.testing.assert_allclose(states[0], oracle.embed(model, ids, types), atol=2e-6, rtol=0)
    for i in range(model.config.num_layers):
        expected, decisive = layer(model, i, states[i].astype(np.float64), lengths)
        sure = decisive > ROUNDING
        # Values are spread over about (-3, 3), so 1,200 of them come within 2e-5 of zero in 2 % of the tokens.
        assert np.mean(sure) > 0.95
        np.testing.assert_allclose(states[i + 1][sure], expected[sure], atol=ROUNDING, rtol=0)
    expected = classify(model, states[-1].astype(np.float64), lengths)
    np.testing.assert_allclose(logits, expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("attention", ["bool", "all"])
def test_layers(sizes: dict[str, Any], attention: str) -> None:
    check(binary_model(**sizes, attention=attention), LENGTHS)


@pytest.mark.parametrize("sizes", (SIZES | {"heads of 256": {"hidden": 256, "heads": 1}}).values())
def test_elastic_layers(sizes: dict[str, Any]) -> None:
    check(elastic_model(**sizes), LENGTHS)


@pytest.mark.parametrize("lengths", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("attention", ["bool", "softmax"])
@pytest.mark.parametrize("sizes", ATTENTION.values(), ids=ATTENTION)
def test_attention_of_another_width(sizes: dict[str, Any], attention: str, threads: int, lengths: list[int]) -> None:
    act = "relu" if attention == "softmax" else "gelu"
    check(binary_model(13, attention=attention, hidden_act=act, **sizes), lengths, threads)


@pytest.mark.parametrize("lengths", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("attention", ["bool", "softmax"])
@pytest.mark.parametrize("head", ["relu", "dense_relu", "dense_gelu"])
def test_heads_and_embeddings_of_other_families(head: str, attention: str, lengths: list[int]) -> None:
    act = "relu" if attention == "softmax" else "gelu"
    check(binary_model(17, attention=attention, hidden_act=act, head=head, embedding_size=17), lengths)


def test_elastic_layers_of_the_longest_texts() -> None:
    check(elastic_model(1, positions=512), [512, 3, 511])


def test_elastic_bits_beyond_every_sum() -> None:
    """Columns whose bit is always 1 or always 0, before every linear layer."""
    model = elastic_model(4)
    for name, numbers in model.elastic.items():
        if name.endswith(".shift"):
            numbers[0::4], numbers[1::4] = 1e30, -1e30
    check(model, [9, 30])


@pytest.mark.parametrize(("scale", "attended"), [(2.5, 0.0), (2.0**32, 0.0), (1e-30, 1.0)])
def test_elastic_probabilities_that_attend_to_nothing_or_to_all(scale: float, attended: float) -> None:
    """A probability is at most 1, so it never reaches half of 2.5; and these are never below 5e-31."""
    model = elastic_model(4)
    for i in range(model.config.num_layers):
        name = f"layers.{i}.attention"
        model.elastic[f"{name}.probabilities.scale"][0] = scale
        found = elastic_oracle.attended_keys(model, name, np.arange(9).reshape(3, 3) % 9, 8)
        assert found.mean() == attended
    check(model, [9, 30])


@pytest.mark.parametrize("states", ["query_states", "key_states"])
@pytest.mark.parametrize("scale", [1e-30, 1e9])
def test_elastic_scores_all_alike_or_far_apart(states: str, scale: float) -> None:
    """All keys share equally, or those with the fewest mismatches take all."""
    model = elastic_model(5)
    for i in range(model.config.num_layers):
        model.elastic[f"layers.{i}.attention.{states}.scale"][0] = scale
    check(model, [9, 30])


def test_elastic_ties_in_every_place() -> None:
    """Small integers and halves: sums fall on thresholds again and again."""
    model = elastic_model(6, hidden=8, heads=4, intermediate=8)
    for name in oracle.linear_names(model.config.num_layers):
        model.dense[f"{name}.bias"] = np.round(model.dense[f"{name}.bias"] * 10)
        tensor, values = model.packed[f"{name}.weight"]
        ones = np.ones_like(tensor.scale)
        model.packed[f"{name}.weight"] = replace(tensor, scale=ones), np.sign(values)
    for name, numbers in model.elastic.items():
        numbers[:] = np.round(numbers * 4) / 4 if name.endswith(".shift") else 0.5
    check(model, [5, 1, 30, 12])


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "silu"])
def test_the_activation_function_has_no_part(act: str) -> None:
    """Oracle: the engine itself with another function; all of these keep the sign of their argument."""
    ids, types = oracle.random_batch(binary_model(), LENGTHS)
    with binary_model(hidden_act=act).engine() as engine, binary_model().engine() as gelu:
        assert np.array_equal(engine.forward(ids, types), gelu.forward(ids, types))


def test_ties_attend_and_empty_sums_are_positive() -> None:
    """With 8 columns and no bias a quarter of the dot products are 0, with heads of 2 half of the scores; all of them
    count as positive."""
    model = binary_model(3, hidden=8, heads=4, intermediate=8)
    for name in oracle.linear_names(model.config.num_layers):
        model.dense[f"{name}.bias"][:] = 0
    check(model, [5, 1, 30, 12])


@pytest.mark.parametrize("group", [None, 1])
def test_one_scale_a_matrix_or_a_row(group: int | None) -> None:
    form = oracle.Form("binary", 1, group_rows=group)
    check(binary_model(2, form=form, word_form=form), [9, 30])


def test_word_embedding_of_another_form() -> None:
    check(binary_model(2, word_form=oracle.Form("uniform", 4, group_rows=1, group_cols=32), hidden=75), [9, 30])


@pytest.mark.parametrize("hidden", [24, 75])
@pytest.mark.parametrize("group", [None, 1])
def test_word_embedding_of_two_terms(group: int | None, hidden: int) -> None:
    word_form = oracle.Form("binary", 1, group_rows=group, terms=2)
    check(binary_model(2, word_form=word_form, hidden=hidden), [9, 30])


def test_biases_beyond_every_sum_decide_alone() -> None:
    model = binary_model(5)
    for part in ("query", "key", "value"):
        bias = model.dense[f"layers.0.attention.{part}.bias"]
        bias[0::3], bias[1::3] = 1e9, -1e9
    check(model, [9, 30])


def test_the_smallest_scale_stands_for_zero() -> None:
    """A row of zeros has the smallest normal number as scale (quantize/binary.py): nothing of it reaches a sum."""
    model = binary_model(6)
    name = "layers.1.ffn.output.weight"
    tensor, values = model.packed[name]
    scale = tensor.scale.copy()
    scale[3] = np.finfo(np.float32).tiny
    values[3] = 0
    model.packed[name] = replace(tensor, scale=scale), values
    check(model, [9, 30])


@pytest.mark.parametrize("head_size", [8, 11])  # 3 heads; the hidden size is 24
@pytest.mark.parametrize("scale_bits", [16, 32])
@pytest.mark.parametrize("attention", ["bool", "all", "softmax"])
def test_from_artifact_equals_from_tensors(tmp_path: Path, scale_bits: int, attention: str, head_size: int) -> None:
    """Oracle: the engine on the tensors in memory."""
    act = "relu" if attention == "softmax" else "gelu"
    model = binary_model(7, positions=40, attention=attention, hidden_act=act, head_size=head_size)
    if scale_bits == 16:
        for name, (tensor, values) in model.packed.items():
            model.packed[name] = replace(tensor, scale=tensor.scale.astype(np.float16).astype(np.float32)), values
    config, tensors = artifact_config(model), artifact_tensors(model)
    for name in model.packed:
        config.tensors[name] = TensorSpec.binary(config.tensors[name].shape, "row", scale_bits)
        tensors[name].scale = tensors[name].scale.astype(np.float16 if scale_bits == 16 else np.float32)
    write_artifact(tmp_path / "artifact", config, tensors, {}, {}, "", {}, model.elastic)
    ids, types = oracle.random_batch(model, [7, 1, 40])
    found = Engine.from_artifact(read_artifact(tmp_path / "artifact")).forward(ids, types)
    assert np.array_equal(found, model.engine().forward(ids, types))


def test_profile_names_every_operation() -> None:
    model = binary_model()
    ids, types = oracle.random_batch(model, [30] * 8)
    with model.engine(threads=2) as engine:
        spent = engine.profile(ids, types)
    assert spent["softmax"] == 0  # nothing of it is computed
    assert all(spent[name] > 0 for name in set(OPERATIONS) - {"waiting", "softmax"})


def test_panels_are_those_of_other_weights() -> None:
    with binary_model().engine() as engine:
        assert engine.panels("pooler.dense.weight") == (0, 0)


def refused(model: oracle.TinyModel, match: str, **changes: Any) -> None:
    with pytest.raises(EngineError, match=match):
        Engine(replace(model.config, **changes), model.tensors())


def test_binary_activations_need_binary_weights_of_one_term() -> None:
    model = binary_model()
    name = "layers.0.ffn.output.weight"
    refused(model, "packed linear weights need uint8 activations", activation_range="fp32")
    ternary = oracle.random_packed(np.random.default_rng(0), 24, 44, oracle.Form("uniform", 4, group_rows=1))[0]
    with pytest.raises(EngineError, match=f"'{name}': 1-bit activations need binary weights of one term"):
        Engine(model.config, model.tensors() | {name: ternary})
    two_terms = oracle.random_packed(np.random.default_rng(0), 24, 44, oracle.Form("binary", 1, terms=2))[0]
    with pytest.raises(EngineError, match=f"'{name}': 1-bit activations need binary weights of one term"):
        Engine(model.config, model.tensors() | {name: two_terms})
    with pytest.raises(EngineError, match=f"'{name}': given as fp32, 1-bit activations need binary weights"):
        Engine(model.config, model.tensors() | {name: model.dense[name]})


def test_what_binary_activations_do_not_have() -> None:
    model = binary_model()
    refused(model, "hidden_act is relu", hidden_act="relu")
    refused(model, "hidden_act is not relu", attention="softmax")
    refused(model, "attention is 'mean', allowed are bool, all, softmax", attention="mean")
    refused(model, "attention is 1, allowed are 0 to 2 with 1-bit", attention="all", activation_range="token")
    refused(model, "must be 0 with 1-bit ones", activation_clip=2.5)
    refused(model, "must be 0 with 1-bit ones", activation_symmetric=True)
    refused(model, "max_positions is 32767, allowed are 1 to 32766", max_positions=32767)
    refused(model, "intermediate_size is 32767, allowed are 1 to 32766", intermediate_size=32767)
    refused(model, "head_size is 257, allowed are 1 to 256", head_size=257)
    refused(model, r"num_heads \* head_size is 32768, allowed are 1 to 32766", num_heads=128, head_size=256)


def test_bits_past_the_last_column_are_refused() -> None:
    model = binary_model(hidden=35, heads=5)
    for name in ("layers.0.attention.key.weight", "embeddings.word.weight"):
        tensor, _ = model.packed[name]
        codes = tensor.codes.copy()
        codes[2, -1] |= 8
        with pytest.raises(EngineError, match=f"'{name}': row 2 holds bytes that are no 1-bit codes"):
            Engine(model.config, model.tensors() | {name: replace(tensor, codes=codes)})


def test_elastic_numbers_are_needed_and_checked() -> None:
    model = elastic_model()
    tensors = model.tensors()
    for name, bad, match in (
        ("layers.1.ffn.output.input.shift", None, r"'layers.1.ffn.output.input.shift' \(1 x 44\) is missing"),
        ("layers.0.attention.probabilities.scale", None, r"probabilities.scale' \(1 x 1\) is missing"),
        ("layers.0.attention.key.input.shift", np.zeros(44, np.float32), "the shape is 1 x 44, expected 1 x 24"),
        ("pooler.dense.input.scale", np.zeros(1, np.float32), "must be above 0 and at most 2"),
        ("pooler.dense.input.shift", np.full(24, np.inf, np.float32), "value 0 is inf, must be finite"),
    ):
        changed = {key: value for key, value in (tensors | {name: bad}).items() if value is not None}
        with pytest.raises(EngineError, match=match):
            Engine(model.config, changed)
    with pytest.raises(EngineError, match="unknown name"):
        Engine(binary_model().config, binary_model().tensors() | model.elastic)

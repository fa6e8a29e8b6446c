"""Mixed precision from the teacher to the engine. Oracles: the replayed student for the engine's logits, the bytes in
the artifact for the budget, all combinations of bits for the solver, an undisturbed run for an interrupted one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_task
import torch

from bitpress.artifact import read_artifact, tensor_bytes, verify
from bitpress.encoder import load_classifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.freeze import round_side_data
from bitpress.quantize import apply_policy
from bitpress.recipes import mixed_precision
from bitpress.recipes.block_latency import BlockLatency
from bitpress.recipes.mixed_precision import Division, layer_blocks
from bitpress.recipes.runner import compress, post_training_artifact
from bitpress.recipes.schema import load_recipe
from bitpress.sensitivity import SensitivitySettings, measure_sensitivity, save_sensitivity
from bitpress.train import EncodedDataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# A layer of the tiny encoder: four matrices of 32 × 32 and two of 32 × 64. Its rows are fewer than 128 groups, so each
# has a scale and an offset.
WEIGHTS, ROWS = 4 * 32 * 32 + 2 * 32 * 64, 4 * 32 + 64 + 32
LAYER = {bits: WEIGHTS * bits // 8 + 8 * ROWS for bits in (2, 3, 4)}
FAST = tiny_task.FAST_COMPRESS | {"epochs": 2}


def press(tiny: Any, out: Path, recipe: str = "q-bert", train: Path | None = None, **overrides: Any) -> Any:
    return compress(
        tiny.teacher,
        recipe=recipe,
        train=tiny.train if train is None else train,
        dev=tiny.dev,
        out=out,
        overrides=FAST | overrides,
        quiet=True,
    )


def encoded(tiny: Any) -> EncodedDataset:
    """A few training texts as the teacher reads them."""
    from bitpress.recipes.inputs import read_split, tokenize
    from bitpress.recipes.teacher_task import teacher_task
    from bitpress.runtime.tokenization import Tokenizer

    task = teacher_task(tiny.teacher)
    dataset = read_split(tiny.train, task.task, None, task.label_names)
    return tokenize(Tokenizer.from_directory(tiny.teacher), dataset, 64, 0)


@pytest.fixture(scope="module")
def report_of(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Finished measurements of the teacher, by kind of block."""
    found = {}
    for by in ("layer", "module"):
        model = load_classifier(tiny.teacher)
        settings = SensitivitySettings(samples=2, share=0.1, max_products=20)
        report = measure_sensitivity(model, encoded(tiny), layer_blocks(model, by), settings)
        found[by] = tmp_path_factory.mktemp(by)
        save_sensitivity(report, found[by])
    return found


@pytest.fixture(scope="module")
def mixed(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """2 and 4 bits under a budget, by a measurement of its own."""
    return press(tiny, tmp_path_factory.mktemp("mixed") / "small", bits="2/4", budget=LAYER[2] + LAYER[4])


def stored_bits(out: Path) -> dict[str, float]:
    tensors = read_artifact(out).config.tensors
    return {name: spec.bits for name, spec in tensors.items() if spec.scheme == "uniform"}


def test_the_engine_runs_mixed_bits_as_they_were_trained(mixed: Any) -> None:
    check = mixed.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    assert mixed.artifact["value"] > mixed.artifact["majority"] + 0.1, "a student that learned nothing"
    assert verify(mixed.out)["ok"]


def test_the_artifact_has_the_bits_that_were_decided_within_the_budget(mixed: Any) -> None:
    decided = {block["name"]: block["bits"] for block in mixed.allocation["blocks"]}
    assert sorted(decided.values()) == [2, 4]
    tensors = read_artifact(mixed.out).config.tensors
    layers = {name: spec for name, spec in tensors.items() if name.startswith("layers.") and spec.scheme == "uniform"}
    assert len(layers) == 12
    for name, spec in layers.items():
        assert spec.bits == decided[".".join(name.split(".")[:2])]
    size = sum(tensor_bytes(name, spec) for name, spec in layers.items())
    assert size == mixed.allocation["bytes"] == LAYER[2] + LAYER[4] == mixed.allocation["budget"]
    assert mixed.allocation["cost"] == mixed.allocation["bytes"]
    assert (mixed.allocation["smallest"], mixed.allocation["largest"]) == (2 * LAYER[2], 2 * LAYER[4])
    assert mixed.allocation["fp32_bytes"] == 2 * 4 * WEIGHTS
    for name in ("pooler.dense", "embeddings.word", "embeddings.position"):
        assert tensors[f"{name}.weight"].bits == 8
    assert tensors["layers.0.ffn.output.weight"].group == "row"


def test_the_more_sensitive_layer_has_more_bits_and_provenance_says_so(mixed: Any) -> None:
    provenance = json.loads((Path(mixed.out) / "provenance.json").read_text())
    assert provenance["allocation"] == mixed.allocation
    first, second = provenance["allocation"]["blocks"]
    assert (first["bits"] > second["bits"]) == (first["omega"] >= second["omega"])
    assert provenance["recipe"]["bits"] == "2/4"


def test_finished_is_not_repeated(mixed: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "measure_sensitivity", None)
    again = press(tiny, Path(mixed.out), bits="2/4", budget=LAYER[2] + LAYER[4])
    assert again == mixed
    with pytest.raises(TrainingError, match=r"recipe.allocation.budget = .*; this one has None"):
        press(tiny, Path(mixed.out), bits="2/4")


def test_a_finished_measurement_is_taken(
    tiny: Any, tmp_path: Path, report_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without measuring, and printed as a table. Nothing is trained, so no training text is needed either."""
    monkeypatch.setattr(mixed_precision, "measure_sensitivity", None)
    result = compress(
        tiny.teacher,
        recipe="int4",
        dev=tiny.dev,
        out=tmp_path / "small",
        overrides={"bits": "2/4", "high": 1, "sensitivity": str(report_of["layer"]), "weights.group_size": 32},
    )
    assert result.artifact["engine_vs_student"]["identical_logits"] == 120
    bits = stored_bits(tmp_path / "small")
    assert sorted(bits[f"layers.{i}.ffn.output.weight"] for i in range(2)) == [2, 4]
    told = capsys.readouterr().err
    assert "bits of the blocks, 2/4 by rank:" in told
    for block in result.allocation["blocks"]:
        assert f"{block['omega']:.4g}" in told
    settings = json.loads((tmp_path / "small.run" / "settings.json").read_text())
    assert len(settings["sensitivity_sha256"]) == 64


def test_by_predicted_loss(tiny: Any, report_of: Any) -> None:
    """trace · error over modules and three widths; oracle: all combinations."""
    overrides = {
        "bits": "2/3/4",
        "rule": "error",
        "by": "module",
        "budget": "14%",
        "sensitivity": str(report_of["module"]),
    }
    recipe, model = load_recipe("q-bert", overrides), load_classifier(tiny.teacher)
    division = Division(recipe, model)
    assert list(division.costs) == [f"layers.{i}.{part}" for i in range(2) for part in ("attention", "ffn")]
    assert division.budget is not None
    report = mixed_precision.load_sensitivity(report_of["module"])
    found = division.divide(report)
    errors = division._errors()
    traces = {block.name: abs(block.trace) / block.size for block in report.blocks}
    best = min(
        sum(traces[name] * errors[name][bits] for name, bits in chosen)
        for chosen in (
            list(zip(division.costs, widths, strict=True)) for widths in itertools.product((2, 3, 4), repeat=4)
        )
        if sum(division.costs[name][bits] for name, bits in chosen) <= division.budget.amount
    )
    assert sum(traces[name] * errors[name][bits] for name, bits in found.bits.items()) == pytest.approx(best, rel=1e-9)
    assert found.bytes <= division.budget.amount < found.largest
    for choices in errors.values():
        assert choices[2] > choices[3] > choices[4] > 0


def test_a_budget_in_milliseconds(tiny: Any, report_of: Any) -> None:
    """Oracle: the times given, added by hand. What the blocks leave is for the rest of the model."""
    overrides = {"bits": "2/4", "by": "module", "budget": "1.4ms", "sensitivity": str(report_of["module"])}
    recipe, model = load_recipe("q-bert", overrides), load_classifier(tiny.teacher)
    report = mixed_precision.load_sensitivity(report_of["module"])
    names = [f"layers.{i}.{part}" for i in range(2) for part in ("attention", "ffn")]
    times = BlockLatency(64, 2, {name: {2: 0.1, 4: 0.25} for name in names}, rest=0.65)
    found = Division(recipe, model, times).divide(report)
    ranked = sorted(report.blocks, key=lambda block: -block.omega)
    assert [block.name for block in ranked if found.bits[block.name] == 4] == [block.name for block in ranked[:2]]
    assert (found.unit, found.budget) == ("ms", 1.4)
    assert (found.cost, found.smallest, found.largest) == pytest.approx((1.35, 1.05, 1.65))
    assert found.bytes == sum(block.bytes for block in found.blocks) < found.fp32_bytes
    words = mixed_precision.in_words(found)
    assert "one text of 64 tokens, 2 threads: 1.350 ms of at most 1.400, 0.650 of them outside the blocks" in words[-1]
    assert [line.split()[-1] for line in words[2:6]] == [f"{found.latency.blocks[n][found.bits[n]]:.3f}" for n in names]


def test_the_engine_measures_the_times_once_a_run(tiny: Any, report_of: Any, tmp_path: Path) -> None:
    overrides = {"bits": "2/4", "budget": "1000ms", "tokens": 32, "sensitivity": str(report_of["layer"])}
    result = press(tiny, tmp_path / "small", max_steps=2, evaluate_every=2, **overrides)
    measured = result.allocation["latency"]
    assert measured["tokens"] == 32
    assert all(0 < ms < 100 for of in measured["blocks"].values() for ms in of.values())
    assert 0 < result.allocation["smallest"] <= result.allocation["cost"] <= result.allocation["largest"] < 1000
    assert set(stored_bits(result.out).values()) >= {4}
    assert {block["bits"] for block in result.allocation["blocks"]} == {4}
    other = BlockLatency(32, 2, {"layers.0": {2: 5.0, 4: 6.0}, "layers.1": {2: 5.0, 4: 6.0}}, 9.0)
    kept = other.kept(tmp_path / "small.run" / "sensitivity" / "latency.json")
    assert {name: {str(bits): ms for bits, ms in of.items()} for name, of in kept.blocks.items()} == measured["blocks"]
    assert kept.rest == measured["rest"] != other.rest


@pytest.mark.parametrize(
    "head", [{"head": "tokens"}, {"num_labels": 1, "problem_type": "regression"}], ids=["tokens", "regression"]
)
def test_times_of_every_kind_of_head(tiny: Any, head: dict[str, Any]) -> None:
    recipe = load_recipe("q-bert", {"bits": "2/4", "budget": "1000ms", "tokens": 16})
    division = Division(recipe, load_classifier(tiny.teacher, **head))
    assert division.latency is not None
    assert all(ms > 0 for of in division.latency.blocks.values() for ms in of.values())


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("q-bert", {"bits": 3}),
        ("q-bert", {"bits": 2, "activations.range": "token", "weights.bounds": "percentile", "side_data": "fp16"}),
        ("q-bert", {"bits": 8, "blocks": {"embeddings.position": {"bits": 4, "symmetric": False, "group": "matrix"}}}),
        ("directq", {"bits": 2}),
        ("directq", {"bits": 8}),
        ("q8bert", {}),
        ("q8bert", {"compat": "reference", "weights.group": "row", "weights.pair_bound": True}),
    ],
    ids=["q-bert-3", "q-bert-2-token", "q-bert-8-positions", "directq-2", "directq-8", "q8bert", "q8bert-reference"],
)
def test_the_engine_runs_the_other_recipes_as_they_were_trained(
    tiny: Any, tmp_path: Path, recipe: str, overrides: dict[str, Any]
) -> None:
    result = press(tiny, tmp_path / "small", recipe, **overrides)
    check = result.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    assert result.allocation is None
    assert verify(result.out)["ok"]
    lines = (tmp_path / "small.run" / "scalars.jsonl").read_text().splitlines()
    components = [json.loads(line)["components"] for line in lines if "components" in json.loads(line)]
    assert components[0].keys() == {"labels", "total"}  # no teacher


def test_half_precision_is_not_for_what_is_stored_as_codes(tiny: Any) -> None:
    model = load_classifier(tiny.teacher)
    positions, types = model.embeddings.position.weight, model.embeddings.token_type.weight
    before = positions.detach().clone()
    with torch.no_grad():
        types.add_(1e-6)  # what half precision does not have
    apply_policy(model, load_recipe("q-bert").policy)
    round_side_data(model)
    assert torch.equal(positions, before)
    assert torch.equal(types, types.half().float())
    apply_policy(model, load_recipe("ternarybert").policy)
    round_side_data(model)
    assert torch.equal(positions, before.half().float())
    assert not torch.equal(positions, before)


def test_a_regression_learns_from_its_own_values(tmp_path: Path) -> None:
    from bitpress.recipes.runner import finetune

    encoder = tiny_task.write_encoder(tmp_path / "encoder")
    train = tiny_task.write_scores(tmp_path / "train.tsv", 200, seed=3)
    dev = tiny_task.write_scores(tmp_path / "dev.tsv", 60, seed=4)
    finetune(encoder, train=train, dev=dev, out=tmp_path / "teacher", task="regression", overrides=FAST, quiet=True)
    result = compress(
        tmp_path / "teacher", recipe="q-bert", train=train, dev=dev, out=tmp_path / "small", overrides=FAST, quiet=True
    )
    assert result.artifact["value"] > 0.5
    assert result.artifact["engine_vs_student"]["identical_logits"] == 60


def test_an_interrupted_run_ends_in_the_same_bytes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it measures, and again in the training, which then takes up the measurement that is finished."""
    from bitpress.sensitivity.measure import _Measurement
    from bitpress.train.running_stage import RunningStage

    overrides = {"bits": "2/4", "max_steps": 8, "evaluate_every": 4, "checkpoint_seconds": 0.0, "epochs": 1}
    calm = press(tiny, tmp_path / "calm", **overrides)
    measure_next, train_step, counts = _Measurement.measure_next, RunningStage._train_step, {"samples": 0, "steps": 0}

    def stop_measuring(measurement: Any) -> None:
        counts["samples"] += 1
        if counts["samples"] == 3:
            raise KeyboardInterrupt
        measure_next(measurement)

    def stop_training(stage: Any) -> None:
        counts["steps"] += 1
        if counts["steps"] == 5:
            raise KeyboardInterrupt
        train_step(stage)

    monkeypatch.setattr("bitpress.train.running_stage.CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(_Measurement, "measure_next", stop_measuring)
    monkeypatch.setattr(RunningStage, "_train_step", stop_training)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            press(tiny, tmp_path / "stopped", **overrides)
    stopped = press(tiny, tmp_path / "stopped", **overrides)
    assert counts["samples"] == 11  # ten, and the one that was stopped
    assert stopped.allocation == calm.allocation
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("calm", "stopped"))
    assert first == second


def test_an_estimate_has_the_bytes_of_the_compression(mixed: Any, tiny: Any, tmp_path: Path) -> None:
    """Which layer has more bits is not known without a measurement, how many have is."""
    post_training_artifact(tiny.teacher, "q-bert", tmp_path / "p", {"bits": "2/4", "budget": LAYER[2] + LAYER[4]})
    estimated = stored_bits(tmp_path / "p")
    assert sorted(estimated.values()) == sorted(stored_bits(mixed.out).values())
    assert (tmp_path / "p" / "model.safetensors").stat().st_size == mixed.artifact["total_bytes"]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"bits": "2/4", "budget": 5000}, r"the budget is 5,000 bytes .*; the 2 blocks take from 7,680 bytes"),
        (
            {"bits": "2/4", "budget": "0.0001ms"},
            r"allocation.budget is 0.0001 ms; here one text of 64 tokens on \d+ threads takes from 0.*Raise the budget",
        ),
        ({"bits": "2/4", "high": 3}, "allocation.high is 3; allowed: 0 to 2"),
        (
            {"bits": "2/4", "by": "matrix", "sensitivity": "layer"},
            "has no block 'layers.0.attention.query', but layers.0",
        ),
        (
            {"bits": 4, "weights.group_fit": "exact"},
            "groups is 128, which does not divide 32 rows; allowed: 1, 2, 4, 8",
        ),
        ({"bits": 4, "blocks": {"layers.7": 2}}, "blocks has 'layers.7', which the model does not have"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tiny: Any, tmp_path: Path, report_of: Any, overrides: dict[str, Any], text: str
) -> None:
    if "sensitivity" in overrides:
        overrides = overrides | {"sensitivity": str(report_of["layer"])}
    with pytest.raises(RecipeError, match=text):
        press(tiny, tmp_path / "small", **overrides)
    assert not (tmp_path / "small.run").exists()


def test_dividing_bits_needs_labelled_text(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"bits is 2/4, which is divided by a sensitivity .* --set sensitivity=DIR"):
        compress(tiny.teacher, recipe="int4", dev=tiny.dev, out=tmp_path / "s", overrides={"bits": "2/4"}, quiet=True)

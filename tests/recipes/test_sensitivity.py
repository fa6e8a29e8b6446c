"""``bitpress sensitivity`` on a teacher of the tiny task. Oracles: an uninterrupted run, the checkpoint's own score,
and what the files say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bitpress.errors import DataError, RecipeError, TrainingError
from bitpress.recipes import measured_sensitivity
from bitpress.recipes.runner import Probes, SensitivityResult, SensitivitySettings, evaluate_checkpoint, sensitivity
from bitpress.sensitivity import load_sensitivity

FEW = SensitivitySettings(samples=3, texts=12, max_products=15, probes=3)


def run(tiny: Any, out: Path, probes: Probes | None = None, **options: Any) -> SensitivityResult:
    arguments = {"train": tiny.train, "settings": FEW, "quiet": True} | options
    return sensitivity(tiny.teacher, out=out, probes=probes, **arguments)


def test_everything_at_once(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "sens"
    probes = Probes(bits=(4, 2), groups=4, landscape="layers.1.ffn", grid=3, span=0.1, compare="2")
    result = run(tiny, out, probes, dev=tiny.dev, by="module")
    document = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert sorted(path.name for path in out.iterdir()) == [
        "attention-kl.json",
        "attention-kl.svg",
        "landscape-layers.1.ffn-3d.svg",
        "landscape-layers.1.ffn.csv",
        "landscape-layers.1.ffn.json",
        "landscape-layers.1.ffn.svg",
        "measured.json",
        "sensitivity.json",
        "sensitivity.svg",
    ]
    assert sorted(document["files"]) == sorted(str(path) for path in out.iterdir())
    assert load_sensitivity(out) == result.report
    assert len(document["ranking"]) == len(result.report.blocks) == 6

    measured = document["measured"]
    score = evaluate_checkpoint(tiny.teacher, tiny.dev)
    assert measured["baseline"]["accuracy"] == score["value"]
    assert (measured["metric"], measured["n"], measured["groups"]) == ("accuracy", 120, 4)
    assert {(drop["block"], drop["bits"]) for drop in measured["drops"]} == {
        (name, bits) for name in document["ranking"] for bits in (4, 2)
    }
    error = {(drop["block"], drop["bits"]): drop["error"] for drop in measured["drops"]}
    assert all(error[name, 2] > 4 * error[name, 4] for name in document["ranking"])  # steps are five times as wide
    assert {(one["bits"], one["proxy"]) for one in measured["agreement"]} == {
        (bits, proxy) for bits in (4, 2) for proxy in ("omega", "trace_error")
    }
    assert json.loads((out / "measured.json").read_text()) == measured
    assert len(document["landscape"]["loss"]) == 3
    attention = document["attention_kl"]
    assert (attention["compared"], attention["groups"], attention["texts"]) == ("2", 4, 120)
    assert (len(attention["layers"]), len(attention["layers"][0])) == (2, 4)
    assert attention["mean"] > 0


def test_without_dev_data_only_the_hessian_is_measured(tiny: Any, tmp_path: Path) -> None:
    result = run(tiny, tmp_path / "sens")
    assert (result.measured, result.landscape, result.attention_kl) == (None, None, None)
    assert sorted(path.name for path in (tmp_path / "sens").iterdir()) == ["sensitivity.json", "sensitivity.svg"]
    with pytest.raises(TrainingError, match="needs labelled data to score on; give --dev"):
        run(tiny, tmp_path / "other", Probes(measure=True))
    assert not (tmp_path / "other").exists()


def test_a_second_call_adds_and_measures_nothing_again(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "sens"
    first = run(tiny, out, Probes(bits=(2,)), dev=tiny.dev)
    scored: list[object] = []
    scores_of = measured_sensitivity.scores_of

    def counted(*arguments: Any) -> dict[str, float]:
        scored.append(arguments)
        return scores_of(*arguments)

    monkeypatch.setattr(measured_sensitivity, "scores_of", counted)
    second = run(tiny, out, Probes(bits=(2, 3)), dev=tiny.dev)
    assert second.report == first.report
    assert len(scored) == 2, "two layers at 3 bits; the rest is remembered"
    assert first.measured is not None
    assert second.measured is not None
    assert second.measured["drops"][:2] == first.measured["drops"]
    with pytest.raises(TrainingError, match=r"measured\.json has groups = 128; this run has 2"):
        run(tiny, out, Probes(bits=(2,), groups=2), dev=tiny.dev)
    with pytest.raises(TrainingError, match=r"settings\.seed = 0; this one has 1"):
        run(tiny, out, settings=dataclasses.replace(FEW, seed=1))
    (out / "measured.json").write_text("{")
    with pytest.raises(TrainingError, match="is damaged; delete it to measure again"):
        run(tiny, out, Probes(bits=(2,)), dev=tiny.dev)


def test_killed_while_blocks_are_scored_it_goes_on_to_the_same_file(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = Probes(bits=(3, 2))
    whole = run(tiny, tmp_path / "whole", probes, dev=tiny.dev)
    scores_of = measured_sensitivity.scores_of
    left = [3]

    def killed(*arguments: Any) -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return scores_of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(measured_sensitivity, "scores_of", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "cut", probes, dev=tiny.dev)
    resumed = run(tiny, tmp_path / "cut", probes, dev=tiny.dev)
    assert resumed.measured == whole.measured
    for name in ("measured.json", "sensitivity.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_attention_of_a_checkpoint_is_compared(tiny: Any, tmp_path: Path) -> None:
    same = run(tiny, tmp_path / "same", Probes(compare=str(tiny.teacher)))
    assert same.attention_kl is not None
    assert abs(same.attention_kl["mean"]) < 1e-9
    other = run(tiny, tmp_path / "other", Probes(compare=str(tiny.encoder)))
    assert other.attention_kl is not None
    assert other.attention_kl["mean"] > 1e-4
    with pytest.raises(RecipeError, match=r"compare is 5; allowed: .* a number of bits: 8, 4, 3, 2"):
        run(tiny, tmp_path / "x", Probes(compare="5"))


def test_what_is_asked_for_is_checked_before_anything_is_measured(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "sens"
    with pytest.raises(RecipeError, match="bits is 5; allowed: 8, 4, 3, 2"):
        Probes(bits=(4, 5))
    with pytest.raises(RecipeError, match="groups is 0"):
        Probes(groups=0)
    for wrong in ({"grid": 4}, {"span": -1.0}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Probes(landscape="layers.0", **wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"no block 'layer3'; allowed: layers\.0, layers\.1"):
        run(tiny, out, Probes(landscape="layer3"))
    with pytest.raises(RecipeError, match="by is 'head'"):
        run(tiny, out, by="head")
    three = tmp_path / "three.tsv"
    three.write_text("sentence\tlabel\nthe film\tbad\nthe plot\tgood\nthe actor\tawful\n")
    with pytest.raises((TrainingError, DataError), match="label"):
        run(tiny, out, train=three)
    assert not out.exists()
    assert not (tmp_path / "sens.run").exists()

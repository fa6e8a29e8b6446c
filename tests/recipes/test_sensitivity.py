"""``bitpress sensitivity`` from files to files. Oracle: the same again, without what was there before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bitpress.cli import app
from bitpress.errors import RecipeError, TrainingError
from bitpress.recipes.runner import Probes, SensitivitySettings, compress, sensitivity
from bitpress.sensitivity import load_sensitivity

SETTINGS = SensitivitySettings(samples=3, texts=16, max_products=12, probes=3)


def measure(tiny: Any, out: Path, **more: Any) -> dict[str, Any]:
    found = sensitivity(tiny.teacher, train=tiny.train, out=out, settings=SETTINGS, quiet=True, **more)
    return {key: value for key, value in found.as_dict().items() if key not in ("seconds", "out", "files")}


def test_everything_is_written_and_the_same_command_continues(tiny: Any, tmp_path: Path) -> None:
    probes = Probes(bits=(4, 2), groups=4, landscape="layers.1", grid=3, compare="3")
    whole = measure(tiny, tmp_path / "sens", dev=tiny.dev, probes=probes)
    written = {path.name for path in (tmp_path / "sens").iterdir()}
    assert written >= {
        *("sensitivity.json", "sensitivity.svg", "measured.json", "attention-kl.json", "attention-kl.svg"),
        *("landscape-layers.1.json", "landscape-layers.1.csv", "landscape-layers.1.svg"),
    }
    assert [block["name"] for block in whole["blocks"]] == ["layers.0", "layers.1"]
    assert {(drop["block"], drop["bits"]) for drop in whole["measured"]["drops"]} == {
        (block, bits) for block in ("layers.0", "layers.1") for bits in (4, 2)
    }
    assert len((tmp_path / "sens" / "landscape-layers.1.csv").read_text().splitlines()) == 10
    report = load_sensitivity(tmp_path / "sens")
    assert [block.omega for block in report.blocks] == [block["omega"] for block in whole["blocks"]]
    samples = sorted((tmp_path / "sens.run" / "samples").iterdir())
    samples[-1].unlink()  # as if it had been killed before the last sample
    assert measure(tiny, tmp_path / "sens", dev=tiny.dev, probes=probes) == whole
    shutil.rmtree(tmp_path / "sens")
    assert measure(tiny, tmp_path / "sens", dev=tiny.dev, probes=probes) == whole


def test_bits_are_divided_by_a_finished_measurement(tiny: Any, tmp_path: Path) -> None:
    measure(tiny, tmp_path / "sens")
    ranking = [block.name for block in load_sensitivity(tmp_path / "sens").ranking()]
    overrides = {"bits": "2/4", "sensitivity": str(tmp_path / "sens"), "max_steps": 2}
    result = compress(
        tiny.teacher, recipe="q-bert", train=tiny.train, dev=tiny.dev, out=tmp_path / "mixed", overrides=overrides,
        quiet=True,
    )  # fmt: skip
    assert result.allocation is not None
    divided = {block["name"]: block["bits"] for block in result.allocation["blocks"]}
    assert divided == {ranking[0]: 4, ranking[1]: 2}
    config = json.loads((tmp_path / "mixed" / "config.json").read_text())["quantization_config"]["tensors"]
    assert config[f"{ranking[0]}.ffn.output.weight"]["bits"] == 4
    assert config[f"{ranking[1]}.ffn.output.weight"]["bits"] == 2


def test_the_command_prints_what_it_found(tiny: Any, tmp_path: Path) -> None:
    arguments = ["sensitivity", tiny.teacher, "--train", tiny.train, "--out", tmp_path / "sens"]
    few = ["--samples", 3, "--texts", 16, "--max-products", 12, "--trace-probes", 3]
    shown = CliRunner().invoke(app, [str(argument) for argument in (*arguments, *few, "--quiet")])
    assert shown.exit_code == 0, shown.output
    assert "layers.1" in shown.stdout
    as_json = CliRunner().invoke(app, [str(argument) for argument in (*arguments, *few, "--quiet", "--json")])
    assert json.loads(as_json.stdout)["settings"]["samples"] == 3
    refused = CliRunner().invoke(app, [str(argument) for argument in (*arguments, *few, "--landscape", "layers.7")])
    assert refused.exit_code == 2
    assert "there is no block 'layers.7'; allowed: layers.0, layers.1" in refused.stderr


def test_what_cannot_be_done_is_said_before_anything_is_measured(tiny: Any, tmp_path: Path) -> None:
    for probes, text in ((Probes(measure=True), "--dev"), (Probes(compare="5"), "allowed: a checkpoint directory")):
        with pytest.raises((RecipeError, TrainingError), match=text):
            measure(tiny, tmp_path / "sens", probes=probes)
    assert not (tmp_path / "sens").exists()

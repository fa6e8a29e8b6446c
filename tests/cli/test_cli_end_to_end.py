"""The commands of the README on a tiny model: finetune, compress, evaluate both, predict, estimate, and again.

Oracle: the commands agree with each other, and a second run repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import labelled_file, make_checkpoint
from typer.testing import CliRunner

from bitpress.cli import app
from bitpress.errors import RecipeError
from bitpress.recipes import runner


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def data(tmp_path: Path) -> tuple[object, ...]:
    train, dev = labelled_file(tmp_path / "train.tsv", rows=40), labelled_file(tmp_path / "dev.tsv", rows=11)
    return ("--train", train, "--dev", dev)


def test_from_encoder_to_prediction_and_again(tmp_path: Path, data: tuple[object, ...]) -> None:
    encoder, teacher, small = make_checkpoint(tmp_path / "encoder"), tmp_path / "teacher", tmp_path / "small"
    dev = data[-1]
    finetune = ("finetune", encoder, *data, "--out", teacher, "--set", "epochs=1", "--quiet")
    compress = ("compress", teacher, *data, "--out", small, "--set", "epochs=1", "--quiet")
    tuned, compressed = run(*finetune), run(*compress)
    assert tuned.keys() >= {"out", "metric", "value", "n", "majority", "metrics", "seconds", "tokens_per_second"}
    assert compressed["teacher"]["value"] == pytest.approx(tuned["value"])

    for model, score in ((teacher, tuned), (small, compressed["artifact"])):
        found = run("evaluate", model, "--data", dev)
        assert found.keys() >= {"metric", "value", "n", "metrics", "majority"}
        for key in ("metric", "value", "n", "majority"):
            assert found[key] == score[key], (model, key)
    assert run("inspect", small)["total_bytes"] == compressed["artifact"]["total_bytes"]
    assert run("predict", small, "a good film")["label"] in ("negative", "positive")

    weights = {path: path.stat().st_mtime_ns for path in (teacher / "model.safetensors", small / "model.safetensors")}
    assert run(*finetune)["value"] == tuned["value"]
    assert run(*compress)["artifact"] == compressed["artifact"]
    assert weights == {path: path.stat().st_mtime_ns for path in weights}


def test_estimate_of_every_recipe(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitpress.bench.latency.PAUSE_SECONDS", 0.0)
    rows = run("estimate", checkpoint, "--length", 8, "--repeats", 1)["rows"]
    first = ["bibert-baseline", "bibert", "binarybert-a4", "binarybert", "bit-chain", "bit-single", "bit"]
    rest = ["directq", "distilbert", "gobo", "int3", "int4", "int8", "q-bert", "q8bert", "ternarybert", "tinybert"]
    assert [row["recipe"] for row in rows] == ["teacher (PyTorch fp32)", *first, *rest]
    assert rows[0]["ratio"] == 1
    assert [row["recipe"] for row in rows if row["paper"] is None] == [rows[0]["recipe"]]
    assert all(row["median_ms"] > 0 for row in rows)
    # A student of 312 columns is no smaller than this teacher of 24.
    assert [row["recipe"] for row in rows[1:] if row["ratio"] <= 1] == ["tinybert"]


def test_estimate_of_overrides(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two layers at 2 and 4 bits weigh is between all at 2 and all at 4, in bytes and as the paper counts. Nothing
    is timed."""

    def untimed(models: dict[str, Path], *_: object, **__: object) -> dict[str, object]:
        rows = [{"model": name, "median_ms": 1.0, "threads": 1} for name in models]
        return {"rows": rows, "machine": {}, "busy_elsewhere": 0.0}

    monkeypatch.setattr("bitpress.bench.latency.measure", untimed)
    found = []
    for bits in ("2", "2/4", "4"):
        row = run("estimate", checkpoint, "--recipe", "q-bert", "--set", f"bits={bits}", "--length", 8)["rows"][1]
        found.append((row["bytes"], row["paper"]["mib"]))
        assert row["paper"]["label"].startswith("Q-BERT paper's accounting")
    assert found == sorted(set(found))


def test_estimate_leaves_out_what_does_not_suit(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it was asked for by name."""
    pack = runner.post_training_artifact

    def only_int8(teacher: Path, recipe: str, out: Path, overrides: dict[str, object]) -> None:
        if recipe != "int8":
            raise RecipeError("it does not suit")
        pack(teacher, recipe, out)

    monkeypatch.setattr("bitpress.bench.latency.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(runner, "post_training_artifact", only_int8)
    result = CliRunner().invoke(app, ["estimate", str(checkpoint), "--length", "8", "--repeats", "1", "--json"])
    assert [row["recipe"] for row in json.loads(result.stdout)["rows"]] == ["teacher (PyTorch fp32)", "int8"]
    assert "bit-single is left out: it does not suit" in result.stderr
    result = CliRunner().invoke(app, ["estimate", str(checkpoint), "--recipe", "bit"])
    assert result.exit_code == 2
    assert "it does not suit" in result.stderr


def test_evaluating_a_teacher_on_data_that_does_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("sentence\tlabel\ngood\tsplendid\n")
    result = CliRunner().invoke(app, ["evaluate", str(checkpoint), "--data", str(wrong), "--json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "splendid" in result.stderr

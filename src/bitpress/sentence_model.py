"""Directories of sentence-transformers: what their files say of pooling, normalization and the length of a text.

``modules.json`` lists modules that run one after another. bitpress runs a transformer, a pooling and, maybe, a
normalization; a directory with others, such as a Dense layer, is refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitpress.errors import UnsupportedModelError
from bitpress.families import POOLINGS

MODULES_FILE = "modules.json"
DEFAULT_POOLING = "mean"  # that of the sentence-transformers library, and of most of its models
# Keys of 1_Pooling/config.json up to sentence-transformers 5; later ones have one key, pooling_mode.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
_MODULE = "sentence_transformers.models."


@dataclass(frozen=True)
class SentenceModel:
    """How an encoder of sentences makes a vector of a text: ``pooling``, one of ``POOLINGS``; whether it is divided by
    its length; and how many tokens a text may have (None: as many as there are positions)."""

    pooling: str
    normalizes: bool
    max_length: int | None


def read_sentence_model(path: str | Path) -> SentenceModel | None:
    """What the files of directory ``path`` say; None where it is no sentence-transformers directory.

    Raises:
        UnsupportedModelError: a file is malformed or missing, or asks for what bitpress does not run; the text names
            it.
    """
    folder = Path(path)
    if not (folder / MODULES_FILE).is_file():
        return None
    modules = _read_json(folder / MODULES_FILE, list)
    if not all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in modules):
        raise UnsupportedModelError(f"{folder / MODULES_FILE}: expected a list of modules, each with its type")
    kinds = [one["type"].rpartition(".")[2] for one in modules]
    if kinds not in ([_TRANSFORMER, _POOLING], [_TRANSFORMER, _POOLING, _NORMALIZE]):
        raise UnsupportedModelError(
            f"{folder / MODULES_FILE}: the modules are {', '.join(kinds)}; bitpress runs {_TRANSFORMER}, {_POOLING} "
            f"and, maybe, {_NORMALIZE}"
        )
    if modules[0].get("path"):
        raise UnsupportedModelError(
            f"{folder / MODULES_FILE}: the transformer stands in {modules[0]['path']!r}; bitpress reads it beside "
            f"{MODULES_FILE}: move its files there and make the path empty"
        )
    _check_prompt(folder / "config_sentence_transformers.json")
    pooling = _pooling_of(folder / str(modules[1].get("path") or "1_Pooling") / "config.json")
    return SentenceModel(pooling, _NORMALIZE in kinds, _max_length(folder))


def sentence_files(pooling: str, normalizes: bool, hidden_size: int, max_length: int | None) -> dict[str, bytes]:
    """The files, by their paths in the directory, that make sentence-transformers (2 and later) load an encoder so."""
    kinds = [(_TRANSFORMER, ""), (_POOLING, "1_Pooling"), *([(_NORMALIZE, "2_Normalize")] if normalizes else [])]
    modules = [{"idx": i, "name": str(i), "path": path, "type": _MODULE + kind} for i, (kind, path) in enumerate(kinds)]
    flags = {key: mode == pooling for key, mode in _POOLING_FLAGS.items()}
    files = {
        MODULES_FILE: modules,
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size, **flags},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
    }
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in files.items()}


def _pooling_of(file: Path) -> str:
    config = _read_json(file, dict)
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for key, name in _POOLING_FLAGS.items() if config.get(key)] or [DEFAULT_POOLING]
    else:
        modes = [str(name) for name in mode] if isinstance(mode, list) else [str(mode)]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UnsupportedModelError(
            f"{file}: the pooling is {' and '.join(modes)}; bitpress runs one of {', '.join(POOLINGS)}"
        )
    return modes[0]


def _max_length(folder: Path) -> int | None:
    """max_seq_length of sentence_bert_config.json."""
    file = folder / "sentence_bert_config.json"
    if not file.is_file():
        return None
    config = _read_json(file, dict)
    if config.get("do_lower_case") and not _tokenizer_lowers(folder):
        raise UnsupportedModelError(
            f"{file}: do_lower_case is true, but the tokenizer tells letters' case apart; bitpress changes no text "
            "before its tokenizer: make do_lower_case false and give the model texts in lower case"
        )
    length = config.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 4):
        raise UnsupportedModelError(f"{file}: max_seq_length is {length!r}; it must be null or an integer above 3")
    return length


def _tokenizer_lowers(folder: Path) -> bool:
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(_read_json(file, dict).get("do_lower_case"))


def _check_prompt(file: Path) -> None:
    """Refuse a text that the library would put before every one."""
    name = _read_json(file, dict).get("default_prompt_name") if file.is_file() else None
    if name is not None:
        raise UnsupportedModelError(
            f"{file}: default_prompt_name is {name!r}; bitpress puts no prompt before a text: make it null, and write "
            "the prompt into the texts"
        )


def _read_json(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(f"{file}: no such file, though {MODULES_FILE} needs it") from None
    except ValueError as error:
        raise UnsupportedModelError(f"{file}: not JSON ({error})") from None
    if not isinstance(content, kind):
        raise UnsupportedModelError(f"{file}: holds a {type(content).__name__}; expected a {kind.__name__}")
    return content

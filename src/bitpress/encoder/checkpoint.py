"""Reading and writing Hugging Face checkpoint directories of classifiers of texts or tokens, of models that answer
questions and of encoders of sentences, of every family in `FAMILIES`.

Read: ``config.json`` with ``model.safetensors`` or ``pytorch_model.bin`` (unpickled with ``weights_only=True``, so a
file cannot run code), either of them whole or in shards under an index. Nothing is fetched: a path is a directory.
Written: ``config.json``, ``model.safetensors`` in fp32 and the tokenizer's files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bitpress.encoder.config import PROBLEM_TYPES, EncoderConfig, reads
from bitpress.encoder.model import SequenceClassifier, fresh_parameter
from bitpress.encoder.names import from_hf_name, has_tensor, is_ignored, to_hf_name
from bitpress.errors import UnsupportedModelError
from bitpress.families import POOLINGS
from bitpress.sentence_model import read_sentence_model, sentence_files

# In the order of preference, which is that of transformers.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"),
    "sentencepiece.bpe.model",
)

_SAME_MODEL = "The weights and config.json must belong to the same model"


class _Stored(NamedTuple):
    """A tensor as a checkpoint file holds it, under the file's own name for it."""

    name: str
    tensor: Tensor
    file: Path


def load_config(path: str | Path, pooling: str | None = None) -> EncoderConfig:
    """The configuration in directory ``path``. One of sentence-transformers is an encoder of sentences, unless its
    config.json names a head.

    Args:
        pooling: makes the checkpoint's encoder one of sentences that pools so, whatever head it has; it normalizes
            vectors unless the directory says that it does not.

    Raises:
        UnsupportedModelError: there is none, it is not JSON, or it describes a model that bitpress does not run.
    """
    raw = _read_config(path)
    if _names_head(raw) and pooling is None:
        return EncoderConfig.from_hf(raw)
    sentences = read_sentence_model(path)
    if sentences is None and pooling is None:
        return EncoderConfig.from_hf(raw)
    pooling = pooling or (sentences.pooling if sentences else None)
    config = EncoderConfig.from_hf({**raw, "head": pooling, "problem_type": None})
    return dataclasses.replace(config, normalizes=sentences.normalizes if sentences else True)


def has_head(path: str | Path) -> bool:
    """Whether the checkpoint in ``path`` says that it has the head of a task that classifies or answers."""
    return _names_head(_read_config(path))


def _names_head(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    endings = ("Classification", "QuestionAnswering", "MultipleChoice")
    return isinstance(names, list) and any(str(name).endswith(endings) for name in names)


def load_classifier(
    path: str | Path,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | Sequence[str] | None = None,
    problem_type: str | None = None,
    head: str | None = None,
    seed: int = 0,
) -> SequenceClassifier:
    """Load a classifier, an encoder of sentences, or a bare encoder with a fresh head, from a Hugging Face directory.
    fp32, CPU, eval mode.

    Labels that are given replace those of the checkpoint; the head's weights stay while the number of labels does. A
    pooler or classifier that the file lacks, or a classifier of another size, starts fresh from ``seed``
    (:func:`~bitpress.encoder.model.fresh_parameter`) and is named in ``model.fresh_tensors``. Heads of other tasks in
    the file are ignored, and so is its pooler where the head reads tokens.

    Args:
        head: what it shall read, "texts", "tokens" or "spans" (tokens, as question answering does); or, of an encoder
            of sentences, one of ``POOLINGS``, as for :func:`load_config`. None: what the checkpoint's does. A
            classifier that reads something else starts fresh.

    Raises:
        UnsupportedModelError: the model is of another kind, or the file lacks a tensor, holds one of another shape or
            one that this encoder has no place for; the text names tensor, file, found and expected.
    """
    config, is_replaced = _with_head(path, num_labels, id2label, problem_type, head)
    files = _weight_files(Path(path))
    found = _read_tensors(files, config)
    if is_replaced:
        found = {name: stored for name, stored in found.items() if not name.startswith("classifier.")}
    with torch.device("meta"):
        model = SequenceClassifier(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name in sorted(found.keys() - shapes.keys()):
        raise UnsupportedModelError(
            f"{found[name].file}: tensor {found[name].name!r} has no place in the encoder that config.json describes "
            f"({config.num_hidden_layers} layers, {config.position_embedding_type} positions). {_SAME_MODEL}"
        )
    fresh = _fresh_names(found, shapes)
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name in fresh or not has_tensor(name, config.family):
            state[name] = fresh_parameter(name, shape, config, seed)
            continue
        skipped = _unused_rows(name, config)
        expected = [shape[0] + skipped, *shape[1:]]
        stored = found.get(name)
        if stored is None:
            count = sum(has_tensor(name, config.family) for name in shapes)
            raise UnsupportedModelError(
                f"{', '.join(map(str, files))}: tensor {to_hf_name(name, config.family)!r} is missing (found "
                f"{len(found)} tensors of {count}); config.json implies it with shape {expected}. {_SAME_MODEL}"
            )
        if list(stored.tensor.shape) != expected or not stored.tensor.is_floating_point():
            raise UnsupportedModelError(
                f"{stored.file}: tensor {stored.name!r} is {_kind(stored.tensor.dtype)} {list(stored.tensor.shape)}; "
                f"config.json implies floating point {expected}. {_SAME_MODEL}"
            )
        # A copy of its own: the source may be a view into a mapped file.
        state[name] = stored.tensor[skipped:].to(torch.float32, copy=True).contiguous()
    model.load_state_dict(state, assign=True)
    model.fresh_tensors = fresh
    return model.eval()


def save_encoder(
    model: SequenceClassifier,
    path: str | Path,
    tokenizer_from: str | Path | None = None,
    extra: Mapping[str, Tensor] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write embeddings and layers of ``model``, without its pooler and head, as a Hugging Face directory that
    ``AutoModel`` and :func:`load_classifier` load; ``extra`` tensors, which both ignore, go into the same file under
    their own names, and ``files`` into the directory. Otherwise as :func:`save_classifier`.
    """
    family = model.config.family
    body = {
        name.removeprefix(family.prefix): tensor
        for name, tensor in _hf_tensors(model, lambda name: not name.startswith(("pooler.", "classifier."))).items()
    }
    config = model.config.to_hf() | {"architectures": [f"{family.name}Model"]}
    of_texts = not (model.config.classifies_tokens or model.config.gives_vectors)
    for key in ("id2label", "label2id", "problem_type", *(() if of_texts else ("head",))):
        config.pop(key, None)
    _write(path, body | dict(extra or {}), config, tokenizer_from, files)


def save_classifier(
    model: SequenceClassifier,
    path: str | Path,
    tokenizer_from: str | Path | None = None,
    max_length: int | None = None,
) -> None:
    """Write ``model`` as a Hugging Face directory that ``AutoModelForSequenceClassification``, or of a classifier of
    tokens ``AutoModelForTokenClassification``, or ``AutoModelForQuestionAnswering``, loads with equal logits.

    Weights are the latent fp32 parameters, without quantizers. Everything is written and synced beside ``path`` first;
    a new directory then appears by one rename, in an existing one each file is replaced whole, ``config.json`` last.
    The same model gives the same bytes. An encoder of sentences gets the files by which sentence-transformers loads it
    with equal vectors (:func:`bitpress.sentence_model.sentence_files`). (`transformers` 5 reads relative position
    checkpoints without their relative part; bitpress and `transformers` 4 read them fully.)

    Args:
        tokenizer_from: a directory whose tokenizer files are copied; None: no tokenizer is written.
        max_length: tokens a text, for sentence-transformers; None: as many as the model has positions.

    Raises:
        UnsupportedModelError: ``tokenizer_from`` holds no tokenizer, or ``path`` is a file.
    """
    config = model.config
    if not config.gives_vectors:
        _write(path, _hf_tensors(model), config.to_hf(), tokenizer_from)
        return
    files = sentence_files(config.head, config.normalizes, config.hidden_size, max_length)
    save_encoder(model, path, tokenizer_from, files=files)


def _hf_tensors(model: SequenceClassifier, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """The model's parameters of the ``wanted`` canonical names as its family's checkpoints hold them, in fp32, without
    those of its quantizers."""
    family, tensors = model.config.family, {}
    for name, parameter in model.named_parameters():
        is_quantizers = any(part.endswith("quantizer") for part in name.split("."))
        if is_quantizers or not wanted(name) or not has_tensor(name, family):
            continue
        tensor = parameter.detach().to("cpu", torch.float32)
        if skipped := _unused_rows(name, model.config):
            tensor = torch.cat([torch.zeros(skipped, *tensor.shape[1:]), tensor])
        tensors[to_hf_name(name, family)] = tensor.contiguous()
    return tensors


def _unused_rows(name: str, config: EncoderConfig) -> int:
    """Rows at the front of a table in the family's checkpoints that no token of a text reads."""
    return config.position_offset if name == "embeddings.position.weight" else 0


def _write(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer_from: str | Path | None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    target = Path(path).resolve()
    if target.exists() and not target.is_dir():
        raise UnsupportedModelError(f"{target}: exists and is not a directory; choose another output directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)  # what a killed run left
    staging.mkdir()
    try:
        if tokenizer_from is not None:
            _copy_tokenizer(Path(tokenizer_from), staging)
        save_file(dict(tensors), staging / "model.safetensors", metadata={"format": "pt"})
        text = json.dumps(dict(config), indent=2, ensure_ascii=False)
        (staging / "config.json").write_text(text + "\n", encoding="utf-8")
        for name, content in (files or {}).items():
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_bytes(content)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _with_head(
    path: str | Path,
    num_labels: int | None,
    id2label: Mapping[int, str] | Sequence[str] | None,
    problem_type: str | None,
    wanted: str | None,
) -> tuple[EncoderConfig, bool]:
    """The checkpoint's configuration with the head asked for (``wanted``, as :func:`load_classifier` takes it), and
    whether that is of another kind than the checkpoint's. A head that is replaced is not judged first: a multi-label
    classifier is a fine encoder to start another task from."""
    if wanted in POOLINGS:
        return load_config(path, wanted), False
    if num_labels is None and id2label is None and problem_type is None and wanted is None:
        return load_config(path), False
    raw = _read_config(path)
    stated = raw.pop("problem_type", None)
    config = EncoderConfig.from_hf(raw)
    is_replaced = wanted is not None and wanted != reads(config.head)
    head = (config.family.default_head if wanted == "texts" else wanted) if is_replaced else None
    changed = config.with_labels(num_labels, id2label, problem_type, head)
    keeps_problem = problem_type is None and not is_replaced and changed.num_labels == config.num_labels
    if keeps_problem and stated in PROBLEM_TYPES:
        changed = changed.with_labels(problem_type=stated)
    return changed, is_replaced


def _fresh_names(found: Mapping[str, _Stored], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Parameters of a pooler that is absent as a whole, and of a classifier that is not there in the asked size."""
    pooler = tuple(name for name in shapes if name.startswith("pooler."))
    classifier = tuple(name for name in shapes if name.startswith("classifier."))
    fresh: tuple[str, ...] = ()
    if not any(name in found for name in pooler):  # also where none is wanted, of a classifier of tokens
        fresh += pooler
    if not all(name in found and tuple(found[name].tensor.shape) == shapes[name] for name in classifier):
        fresh += classifier
    return fresh


def _kind(dtype: torch.dtype) -> str:
    return "floating point" if dtype.is_floating_point else str(dtype)


def _read_config(path: str | Path) -> dict[str, Any]:
    directory = Path(path)
    if not directory.is_dir():
        raise UnsupportedModelError(
            f"{path}: not a directory; give a local Hugging Face checkpoint directory (bitpress downloads nothing)"
        )
    return _read_json(directory / "config.json")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(
            f"{file.parent}: no {file.name}; a Hugging Face checkpoint directory has one. Save the model with "
            "save_pretrained, or check the path"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnsupportedModelError(f"{file}: not JSON ({error}); save the model again with save_pretrained") from None
    if not isinstance(content, dict):
        raise UnsupportedModelError(f"{file}: holds a {type(content).__name__}; expected a JSON object")
    return content


def _read_tensors(files: Sequence[Path], config: EncoderConfig) -> dict[str, _Stored]:
    """Everything in the weight files that the encoder or its head may use, by canonical name; what has none keeps its
    own name, which no parameter bears."""
    found: dict[str, _Stored] = {}
    for file in files:
        for name, tensor in _tensors_of(file, lambda name: not is_ignored(name, config.family)).items():
            canonical = from_hf_name(name, config.family) or name
            if canonical in found:
                raise UnsupportedModelError(
                    f"{file}: tensors {found[canonical].name!r} and {name!r} are the same parameter; remove one"
                )
            found[canonical] = _Stored(name, tensor, file)
    return found


def _weight_files(directory: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        file = directory / name
        if not file.is_file():
            continue
        if not name.endswith(".index.json"):
            return [file]
        weight_map = _read_json(file).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UnsupportedModelError(f"{file}: no 'weight_map'; a shard index maps each tensor name to a file name")
        shards = sorted(set(map(str, weight_map.values())))
        for shard in shards:
            if shard != Path(shard).name or not (directory / shard).is_file():
                raise UnsupportedModelError(
                    f"{file}: shard {shard!r} is not a file of {directory}; put all shards there"
                )
        return [directory / shard for shard in shards]
    raise UnsupportedModelError(f"{directory}: no weights; expected one of {', '.join(WEIGHT_FILES)}")


def load_extra_tensors(path: str | Path, prefix: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint that are no part of the encoder, fp32, by their names: those that begin with ``prefix``.

    Raises:
        UnsupportedModelError: the weight files cannot be read.
    """
    found: dict[str, Tensor] = {}
    for file in _weight_files(Path(path)):
        found |= _tensors_of(file, lambda name: name.startswith(prefix))
    return {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in sorted(found.items())}


def _tensors_of(file: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of one file that have ``wanted`` names, under their stored names."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt", device="cpu") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModelError(
            f"{file}: cannot be read as plain tensors ({reason}); save the model again with save_pretrained"
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise UnsupportedModelError(f"{file}: not a state dict of tensors; save the model again with save_pretrained")
    return {name: tensor for name, tensor in loaded.items() if wanted(name)}


def _copy_tokenizer(source: Path, target: Path) -> None:
    present = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not {"tokenizer.json", "vocab.txt", "merges.txt"} & set(present):
        raise UnsupportedModelError(
            f"{source}: no tokenizer; expected tokenizer.json, vocab.txt, or vocab.json and merges.txt. Save the "
            "tokenizer there with save_pretrained"
        )
    for name in present:
        shutil.copyfile(source / name, target / name)


def _publish(staging: Path, target: Path) -> None:
    """Move the finished files of ``staging`` to ``target``; a reader sees whole files only."""
    for file in staging.rglob("*"):
        _sync(file)
    _sync(staging)
    if not target.exists():
        os.rename(staging, target)
    else:
        names = [str(file.relative_to(staging)) for file in staging.rglob("*") if file.is_file()]
        for name in sorted(names, key=lambda name: (name == "config.json", name)):
            (target / name).parent.mkdir(exist_ok=True)
            os.replace(staging / name, target / name)
        _sync(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""``bitpress pretrain``: general distillation (TinyBERT, Jiao et al. 2020, arXiv 1909.10351, §3.3).

A student of another shape learns the attention scores and hidden states of an encoder that was not fine-tuned, on raw
text and without masking. What comes out is where ``compress --student`` starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from torch import nn

import bitpress
from bitpress.encoder import SequenceClassifier, load_classifier, load_config, save_encoder
from bitpress.errors import RecipeError
from bitpress.recipes.corpus import corpus_files, packed_corpus, split_off
from bitpress.recipes.inputs import check_tokenizer, resolve_max_length, weights_digest
from bitpress.recipes.run_directory import RunDirectory
from bitpress.recipes.schema import Distillation
from bitpress.recipes.teaching import Teaching
from bitpress.runtime.tokenization import Tokenizer
from bitpress.slim import StudentShape, fresh_student, from_layers
from bitpress.train import EncodedDataset, Schedule, collate, run_stage

# The released code's: 3 epochs at 5e-5 in batches of 256 sequences of 128 tokens, BertAdam. A small corpus on a CPU
# wants smaller batches and larger steps.
DEFAULTS: dict[str, Any] = {"learning_rate": 5e-4, "epochs": 1, "batch_tokens": 4096, "warmup": 0.05}
STAGE = "general"
METRIC = "minus_held_out_loss"  # higher is better
HELD_OUT_SHARE, HELD_OUT_MOST = 0.01, 256  # sequences


class PretrainSettings(BaseModel):
    """What ``--set`` may change: the keys of the schedule and of ``distill``, ``max_length`` and ``max_tokens``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    distill: Distillation
    max_length: int | None = None
    max_tokens: int | None = None

    @classmethod
    def from_overrides(cls, overrides: Mapping[str, Any] | None, seed: int) -> PretrainSettings:
        """DEFAULTS with ``overrides``; RecipeError names an unknown key or a value that is not allowed."""
        values = dict(overrides or {})
        if values.get("batch_size") is not None:
            values.setdefault("batch_tokens", None)
        own: dict[str, Any] = {key: values.pop(key) for key in ("max_length", "max_tokens") if key in values}
        steps = {field.name for field in dataclasses.fields(Schedule)}
        losses = {"attention_scores", "hidden_states", "layer_map", "projection", "padding"}
        for key in values:
            if key not in steps | losses:
                known = ["max_length", "max_tokens", *sorted(losses), *sorted(steps)]
                raise RecipeError(f"--set {key}: no such setting; known: {', '.join(known)}")
        document: dict[str, Any] = {
            "schedule": {**DEFAULTS, "seed": seed, **{k: v for k, v in values.items() if k in steps}},
            "distill": {"logits": 0.0, **{k: v for k, v in values.items() if k in losses}},
            **own,
        }
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            raise RecipeError(f"--set {first['loc'][-1]}: {first['msg']} (found {first.get('input')!r})") from error


@dataclass(frozen=True)
class PretrainResult:
    """A finished general student: its directory, its shape, its loss on held-out text, and what training took."""

    out: str
    student: str
    parameters: int
    held_out_loss: float
    losses: dict[str, float]
    sequences: int
    tokens: int
    steps: int
    best_step: int
    seconds: float
    tokens_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def pretrain(
    encoder: str | Path,
    *,
    corpus: Sequence[str | Path],
    student: str,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> PretrainResult:
    """Distil ``encoder`` into a general ``student`` on raw text; write it to ``out`` with its projections.

    Killed at any moment and called again with the same arguments it continues; finished, it returns at once.

    Args:
        encoder: Hugging Face directory of a pretrained BERT encoder, the teacher.
        corpus: text files (also ``.gz``) or globs, a text a line.
        student: a shape such as "4x312", of random weights; or a number, so many of the encoder's own layers.
        cache: where tokenized text is kept; None: in the run directory.
        overrides: keys of ``Schedule``, of the losses, ``max_length`` (tokens a sequence, 128) and ``max_tokens`` (read
            no more of the corpus).

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError: nothing is written to ``out`` then.
    """
    settings = PretrainSettings.from_overrides(overrides, seed)
    config = load_config(encoder)
    tokenizer = Tokenizer.from_directory(encoder)
    check_tokenizer(tokenizer, config, encoder)
    length = resolve_max_length(settings.max_length, 128, config)
    files = corpus_files(corpus)
    teacher = load_classifier(encoder)
    model = _student(teacher, student, seed)
    run = RunDirectory(
        out,
        {
            "command": "pretrain",
            "bitpress": bitpress.__version__,
            "encoder_sha256": weights_digest(encoder),
            "student": student,
            "seed": seed,
            "corpus": [path.name for path in files],
            "settings": settings.model_dump(mode="json") | {"max_length": length, "checkpoint_seconds": None},
        },
    )
    finished = run.finished()
    if finished is not None:
        return PretrainResult(**{**finished, "out": str(out)})
    run.begin()

    console = Console(stderr=True)
    if not quiet:
        console.print(f"reading {len(files)} file(s) of text", highlight=False, markup=False)
    texts = packed_corpus(
        files,
        tokenizer,
        length,
        Path(cache) if cache is not None else run.path / "corpus",
        pad_id=config.pad_token_id or 0,
        max_tokens=settings.max_tokens,
        seed=seed,
    )
    train, held_out = split_off(texts, HELD_OUT_SHARE, HELD_OUT_MOST)
    # What no loss reaches would be carried through the optimizer and checkpoints for nothing.
    for parameter in (*model.pooler.parameters(), *model.classifier.parameters()):
        parameter.requires_grad_(False)
    teaching = Teaching(
        settings.distill, model, teacher, seed=seed, warn=lambda text: console.print(f"warning: {text}", markup=False)
    )
    if not quiet:
        console.print(
            f"{len(train):,} sequences, {int(train.lengths.sum()):,} tokens; {len(held_out)} sequences are held out",
            highlight=False,
            markup=False,
        )
    stage = run_stage(
        name=STAGE,
        model=model,
        train=train,
        loss_fn=teaching,
        evaluate=lambda model: _held_out_losses(model, held_out, teaching),
        metric=METRIC,
        schedule=settings.schedule,
        run_dir=run.path,
        fingerprint={"max_length": length},
        console=console,
        quiet=quiet,
    )
    projections = teaching.end()
    save_encoder(model, out, tokenizer_from=encoder, extra=projections.tensors() if projections else None)
    result = PretrainResult(
        out=str(out),
        student=f"{model.config.num_hidden_layers}x{model.config.hidden_size}",
        parameters=sum(p.numel() for n, p in model.named_parameters() if not n.startswith(("pooler.", "classifier."))),
        held_out_loss=-stage.best_metric,
        losses={key: value for key, value in stage.metrics.items() if key != METRIC},
        sequences=len(train),
        tokens=stage.tokens,
        steps=stage.steps,
        best_step=stage.best_step,
        seconds=round(stage.seconds, 2),
        tokens_per_second=round(stage.tokens_per_second, 1),
    )
    run.finish(result.as_dict())
    return result


def _student(teacher: SequenceClassifier, student: str, seed: int) -> SequenceClassifier:
    if student.isdecimal():
        return from_layers(teacher, int(student))
    return fresh_student(teacher.config, StudentShape.parse(student), seed)


@torch.no_grad()
def _held_out_losses(model: nn.Module, held_out: EncodedDataset, teaching: Teaching) -> dict[str, float]:
    """Means over the held-out sequences of the loss and its parts."""
    sums: dict[str, float] = {}
    for indices in np.array_split(np.arange(len(held_out)), -(-len(held_out) // 32)):
        _, parts = teaching(model, collate(held_out, indices))
        for key, value in parts.items():
            sums[key] = sums.get(key, 0.0) + float(value) * len(indices) / len(held_out)
    return {**sums, METRIC: -sums["total"]}

"""``bitpress pretrain``: raw text teaches a smaller general student, or a masked-language-model head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, field_validator
from rich.console import Console

import bitpress
from bitpress.encoder import load_classifier, load_config
from bitpress.errors import RecipeError
from bitpress.recipes.corpus import corpus_files, packed_corpus, split_off
from bitpress.recipes.general_distillation import GeneralDistillation
from bitpress.recipes.inputs import check_tokenizer, resolve_max_length, weights_digest
from bitpress.recipes.masked_language import MaskedLanguage
from bitpress.recipes.overrides import SCHEDULE_KEYS, checked_overrides, validated
from bitpress.recipes.run_directory import RunDirectory
from bitpress.recipes.schema import Distillation
from bitpress.runtime.tokenization import Tokenizer
from bitpress.slim import EmbeddingsFrom
from bitpress.train import Processes, Schedule, run_stage

TASKS = ("distill", "mlm")
# The release of TinyBERT has 3 epochs at 5e-5 in batches of 256 sequences of 128 tokens, BertAdam. A small corpus on a
# CPU wants smaller batches and larger steps.
DEFAULTS: dict[str, Any] = {"learning_rate": 5e-4, "epochs": 1, "batch_tokens": 4096, "warmup": 0.05}
HELD_OUT_SHARE, HELD_OUT_MOST = 0.01, 256  # sequences
_LOSSES = ("attention_scores", "hidden_states", "layer_map", "projection", "padding")
_OWN = {
    "distill": ("max_length", "max_tokens", "embeddings"),
    "mlm": ("max_length", "max_tokens", "mask_share", "train_body"),
}


class PretrainSettings(BaseModel):
    """What ``--set`` may change: the keys of the schedule, ``max_length`` (tokens a sequence), ``max_tokens`` (read no
    more of the corpus); for distill the losses and ``embeddings``, for mlm ``mask_share`` and ``train_body``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    distill: Distillation
    max_length: int | None = None
    max_tokens: int | None = None
    embeddings: EmbeddingsFrom = "random"
    mask_share: float = 0.15
    train_body: bool = False

    @field_validator("mask_share")
    @classmethod
    def _is_share(cls, value: float) -> float:
        if not 0 < value < 1:
            raise ValueError("allowed: above 0 and below 1")
        return value

    @classmethod
    def from_overrides(cls, task: str, overrides: Mapping[str, Any] | None, seed: int) -> PretrainSettings:
        """DEFAULTS with ``overrides``; RecipeError names an unknown key or a value that is not allowed."""
        losses = _LOSSES if task == "distill" else ()
        values = checked_overrides(overrides, (*_OWN[task], *losses), f" of task {task!r}")
        document: dict[str, Any] = {
            "schedule": {**DEFAULTS, "seed": seed, **{k: v for k, v in values.items() if k in SCHEDULE_KEYS}},
            "distill": {"logits": 0.0, **{k: v for k, v in values.items() if k in losses}},
            **{k: v for k, v in values.items() if k in _OWN[task]},
        }
        return validated(cls, document)


@dataclass(frozen=True)
class PretrainResult:
    """What was made and where, what was measured of it on held-out text, and what training took."""

    out: str
    model: str
    parameters: int
    metrics: dict[str, float]
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
    out: str | Path,
    task: str = "distill",
    student: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> PretrainResult:
    """Train on raw text and write a Hugging Face directory: a general student of ``encoder`` with the projections it
    was taught through, or ``encoder`` with a masked-language-model head.

    Killed at any moment and called again with the same arguments it continues; finished, it returns at once. Several
    processes, on one machine or more, train together where a launcher started them (docs/distributed.md). The
    weights kept are those that were best on sequences held out from the end of the corpus.

    Args:
        encoder: Hugging Face directory of a pretrained BERT encoder: the teacher, or what the head reads.
        corpus: text files (also ``.gz``) or globs, a text a line.
        task: "distill" or "mlm".
        student: with "distill", a shape such as "4x312", of random weights; or a number, so many of the encoder's own
            layers.
        cache: where tokenized text is kept; None: in the run directory.
        overrides: see :class:`PretrainSettings`.

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError: nothing is written to ``out`` then.
    """
    if task not in TASKS:
        raise RecipeError(f"task is {task!r}; allowed: {', '.join(TASKS)}")
    if (student is None) == (task == "distill"):
        raise RecipeError("--student is a shape, needed for task 'distill' and not used by 'mlm'")
    settings = PretrainSettings.from_overrides(task, overrides, seed)
    config = load_config(encoder)
    tokenizer = Tokenizer.from_directory(encoder)
    check_tokenizer(tokenizer, config, encoder)
    length = resolve_max_length(settings.max_length, 128, config)
    files = corpus_files(corpus)
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    model = load_classifier(encoder)
    objective: GeneralDistillation | MaskedLanguage
    if student is not None:
        objective = GeneralDistillation(
            model, student, settings.distill, seed, settings.embeddings, lambda text: say(f"warning: {text}")
        )
    else:
        mask, special = tokenizer.mask_and_special_ids()
        objective = MaskedLanguage(model, mask, special, settings.mask_share, settings.train_body, seed)
    recorded = settings.model_dump(mode="json") | {"max_length": length}
    recorded["schedule"]["checkpoint_seconds"] = None  # has no effect on the result
    run = RunDirectory(
        out,
        {
            "command": "pretrain",
            "bitpress": bitpress.__version__,
            "task": task,
            "encoder_sha256": weights_digest(encoder),
            "student": student,
            "seed": seed,
            "corpus": [path.name for path in files],
            "settings": recorded,
        },
    )
    finished = run.finished()
    if finished is not None:
        return PretrainResult(**{**finished, "out": str(out)})
    together = Processes(Accelerator(mixed_precision="no"))
    quiet = quiet or not together.is_first
    if together.is_first:
        run.begin()

    if not quiet:
        say(f"reading {len(files)} file(s) of text")
    with together.first_one_first():  # the others find what it has written
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
    if not quiet:
        say(f"{len(train):,} sequences, {int(train.lengths.sum()):,} tokens; {len(held_out)} sequences are held out")
    stage = run_stage(
        name=task,
        model=objective.model,
        train=train,
        loss_fn=objective.loss,
        evaluate=lambda model: objective.evaluate(model, held_out),
        metric=objective.metric,
        schedule=settings.schedule,
        run_dir=run.path,
        fingerprint={"max_length": length},
        console=console,
        quiet=quiet,
        distributed=True,
    )
    result = PretrainResult(
        out=str(out),
        **objective.describe(),
        metrics=stage.metrics,
        sequences=len(train),
        tokens=stage.tokens,
        steps=stage.steps,
        best_step=stage.best_step,
        seconds=round(stage.seconds, 2),
        tokens_per_second=round(stage.tokens_per_second, 1),
    )
    if together.is_first:
        objective.write(out, encoder)
        run.finish(result.as_dict())
    together.wait()
    return result

"""``bitpress finetune``: a pretrained encoder and labelled text become a teacher, a Hugging Face directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt
from rich.console import Console
from torch import Tensor, nn

import bitpress
from bitpress.artifact import SpanSpec
from bitpress.data import QUESTION_ANSWERING, TOKEN_CLASSIFICATION, Dataset, Task, get_task, headline, summarize
from bitpress.data.squad_metrics import THRESHOLD
from bitpress.data.tasks import TASK_KEY
from bitpress.encoder import (
    EncoderConfig,
    SequenceClassifier,
    load_classifier,
    load_config,
    model_loss,
    save_classifier,
)
from bitpress.errors import RecipeError
from bitpress.recipes.evaluation import evaluated, evaluation, evaluation_note, logits_of, scored
from bitpress.recipes.inputs import (
    DataOptions,
    check_same_form,
    check_tokenizer,
    read_split,
    resolve_max_length,
    tokenize,
    unread_note,
    weights_digest,
)
from bitpress.recipes.overrides import checked_overrides, validated
from bitpress.recipes.run_directory import RunDirectory
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import Batch, Schedule, run_stage

# BERT's own fine-tuning settings (Devlin et al. 2018, appendix A.3), batches counted in tokens instead of texts.
DEFAULTS: dict[str, Any] = {"learning_rate": 5e-5, "epochs": 3, "batch_tokens": 1024}
STAGE = "finetune"
SPAN_KEYS = ("doc_stride", "max_query_length", "max_answer_length")


class FinetuneSettings(BaseModel):
    """What ``--set`` may change: the keys of the schedule, ``max_length``, and of question answering those of
    :class:`~bitpress.artifact.SpanSpec`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    max_length: int | None = None
    doc_stride: PositiveInt | None = None
    max_query_length: PositiveInt | None = None
    max_answer_length: PositiveInt | None = None

    @classmethod
    def from_overrides(cls, overrides: Mapping[str, Any] | None, seed: int) -> FinetuneSettings:
        """DEFAULTS with ``overrides``; RecipeError names an unknown key or a value of the wrong type."""
        own = ("max_length", *SPAN_KEYS)
        values = checked_overrides(overrides, own)
        given = {key: values.pop(key, None) for key in own}
        return validated(cls, {"schedule": {**DEFAULTS, "seed": seed, **values}, **given})

    def spans(self, task: Task) -> SpanSpec | None:
        """How contexts are read and answers found; None where the task is another. RecipeError where it is, and one of
        these was set."""
        given = {key: value for key in SPAN_KEYS if (value := getattr(self, key)) is not None}
        if task.kind == QUESTION_ANSWERING:
            return SpanSpec(**given)
        if given:
            raise RecipeError(f"--set {next(iter(given))} is for question answering; the task is {task.name}")
        return None


@dataclass(frozen=True)
class FinetuneResult:
    """A finished teacher: its directory and dev score (fractions or correlations), and what training took."""

    out: str
    task: str
    metric: str
    value: float
    n: int
    majority: float
    metrics: dict[str, float]
    steps: int
    best_step: int
    seconds: float
    tokens_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def finetune(
    encoder: str | Path,
    *,
    task: str = "classification",
    train: str | Path,
    dev: str | Path,
    out: str | Path,
    columns: DataOptions | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> FinetuneResult:
    """Train all parameters of ``encoder`` on ``train``; keep the weights that are best on ``dev``.

    The head starts fresh, unless the checkpoint has one with as many labels already.

    Killed at any moment and called again with the same arguments it continues, to byte-identical weights; finished, it
    returns at once. Classification, of texts or tokens, learns by cross-entropy, regression by squared error, question
    answering by the cross-entropies of an answer's start and end.

    Args:
        encoder: Hugging Face directory of a BERT encoder.
        task: a name of ``bitpress.data.TASK_NAMES``.
        overrides: keys of ``Schedule``, ``max_length`` in tokens, and of question answering those of ``SpanSpec``.

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError: nothing is written then.
    """
    settings = FinetuneSettings.from_overrides(overrides, seed)
    known = get_task(task)
    spans = settings.spans(known)
    train_set = read_split(train, known, columns, None)
    dev_set = read_split(dev, known, columns, train_set.label_names or None)
    check_same_form(train_set, dev_set)
    config = load_config(encoder)
    max_length = resolve_max_length(settings.max_length, known.max_length, config)
    tokenizer = Tokenizer.from_directory(encoder)
    check_tokenizer(tokenizer, config, encoder)
    model = _new_model(encoder, known, train_set, seed)
    run = RunDirectory(
        out,
        {
            "command": "finetune",
            "bitpress": bitpress.__version__,
            "encoder_sha256": weights_digest(encoder),
            "task": dataclasses.asdict(known),
            "labels": train_set.label_names,
            "train_sha256": train_set.fingerprint,
            "dev_sha256": dev_set.fingerprint,
            "columns": dataclasses.asdict(columns or DataOptions()),
            "max_length": max_length,
            "schedule": dataclasses.asdict(settings.schedule) | {"checkpoint_seconds": None},
            **({} if spans is None else {"spans": dataclasses.asdict(spans)}),
        },
    )
    finished = run.finished()
    if finished is not None:
        return FinetuneResult(**{**finished, "out": str(out)})
    run.begin()

    console = Console(stderr=True)
    pad = config.pad_token_id or 0
    encoded = [tokenize(tokenizer, data, max_length, pad, spans) for data in (train_set, dev_set)]
    notes = [unread_note(data, tokens, max_length) for data, tokens in zip((train_set, dev_set), encoded, strict=True)]
    for text in (*notes, evaluation_note(dev_set, encoded[1])):
        if text and not quiet:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    stage = run_stage(
        name=STAGE,
        model=model,
        train=encoded[0],
        loss_fn=_loss(model.config),
        evaluate=evaluation(known, encoded[1], dev_set),
        metric=headline(known, model.config.num_labels),
        schedule=settings.schedule,
        run_dir=run.path,
        fingerprint={"max_length": max_length},
        console=console,
        quiet=quiet,
    )
    if len(evaluated(dev_set, encoded[1])[0]) < len(dev_set):
        score = scored(known, logits_of(model.eval(), encoded[1]), encoded[1], dev_set)
    else:  # the weights that are kept are those that gave these metrics
        score = summarize(known, stage.metrics, dev_set, model.config.num_labels)
    own: dict[str, Any] = {"task": known.name, "max_length": max_length}
    if spans is not None:
        own["spans"] = dataclasses.asdict(spans) | {THRESHOLD: score["metrics"].get(THRESHOLD)}
    model.config = dataclasses.replace(model.config, extra={**model.config.extra, TASK_KEY: own})
    save_classifier(model, out, tokenizer_from=encoder)
    result = FinetuneResult(
        out=str(out),
        task=known.name,
        **score,
        steps=stage.steps,
        best_step=stage.best_step,
        seconds=round(stage.seconds, 2),
        tokens_per_second=round(stage.tokens_per_second, 1),
    )
    run.finish(result.as_dict())
    return result


def _new_model(encoder: str | Path, task: Task, train_set: Dataset, seed: int) -> SequenceClassifier:
    """The encoder with a head for ``task`` that starts fresh from ``seed``."""
    if task.kind == "regression":
        return load_classifier(encoder, num_labels=1, problem_type="regression", over_tokens=False, seed=seed)
    if task.kind == QUESTION_ANSWERING:
        return load_classifier(encoder, id2label=train_set.label_names, over_spans=True, seed=seed)
    if task.kind == TOKEN_CLASSIFICATION:
        return load_classifier(encoder, id2label=train_set.label_names, over_tokens=True, seed=seed)
    return load_classifier(
        encoder,
        id2label=train_set.label_names,
        problem_type="single_label_classification",
        over_tokens=False,
        seed=seed,
    )


def _loss(config: EncoderConfig) -> Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]:
    """As ``run_stage`` takes it."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.labels is not None, "read_split requires labels"
        logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        return model_loss(config, logits, batch.labels, batch.attention_mask), {}

    return loss

"""``bitpress finetune``: a pretrained encoder and labelled text become a teacher, a Hugging Face directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from rich.console import Console
from torch import Tensor, nn

import bitpress
from bitpress.artifact import SpanSpec
from bitpress.data import (
    EMBEDDING,
    MULTILABEL,
    QUESTION_ANSWERING,
    TOKEN_CLASSIFICATION,
    Dataset,
    Task,
    get_task,
    headline,
    summarize,
)
from bitpress.data.squad_metrics import THRESHOLD
from bitpress.data.tasks import TASK_KEY
from bitpress.encoder import EncoderConfig, SequenceClassifier, load_classifier, model_loss, save_classifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.recipes.evaluation import evaluated, evaluation, evaluation_note, logits_of, scored
from bitpress.recipes.inputs import (
    DataOptions,
    check_pairs,
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
from bitpress.recipes.teacher_task import embedding_config
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import Batch, Schedule, run_stage

# BERT's own fine-tuning settings (Devlin et al. 2018, appendix A.3), batches counted in tokens instead of texts.
DEFAULTS: dict[str, Any] = {"learning_rate": 5e-5, "epochs": 3, "batch_tokens": 1024}
STAGE = "finetune"
# Settings that tasks of one kind have.
OWN_KEYS = {QUESTION_ANSWERING: ("doc_stride", "max_query_length", "max_answer_length"), MULTILABEL: ("threshold",)}


class FinetuneSettings(BaseModel):
    """What ``--set`` may change: the keys of the schedule, ``max_length``, of question answering those of
    :class:`~bitpress.artifact.SpanSpec`, and of multilabel ``threshold``, the probability from which on a label is
    predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    max_length: int | None = None
    doc_stride: PositiveInt | None = None
    max_query_length: PositiveInt | None = None
    max_answer_length: PositiveInt | None = None
    threshold: float | None = Field(None, gt=0, lt=1)

    @classmethod
    def from_overrides(cls, overrides: Mapping[str, Any] | None, seed: int) -> FinetuneSettings:
        """DEFAULTS with ``overrides``; RecipeError names an unknown key or a value of the wrong type."""
        own = ("max_length", *(key for keys in OWN_KEYS.values() for key in keys))
        values = checked_overrides(overrides, own)
        given = {key: values.pop(key) for key in own if key in values}
        return validated(cls, {"schedule": {**DEFAULTS, "seed": seed, **values}, **given})

    def own(self, task: Task) -> dict[str, Any]:
        """What was set of the settings that only tasks of this kind have; RecipeError where one of another kind was."""
        given: dict[str, Any] = {}
        for kind, keys in OWN_KEYS.items():
            given_of_kind = {key: value for key in keys if (value := getattr(self, key)) is not None}
            if given_of_kind and kind != task.kind:
                raise RecipeError(
                    f"--set {next(iter(given_of_kind))} is for {kind.replace('_', ' ')}; the task is {task.name}"
                )
            given |= given_of_kind
        return given


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
    pooling: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> FinetuneResult:
    """Train all parameters of ``encoder`` on ``train``; keep the weights that are best on ``dev``.

    The head starts fresh, unless the checkpoint has one with as many labels already.

    Killed at any moment and called again with the same arguments it continues, to byte-identical weights; finished, it
    returns at once. Classification, of texts or tokens, learns by cross-entropy, with any number of labels by a binary
    one for each, regression by squared error, question answering by the cross-entropies of an answer's start and end,
    sentence embeddings by :func:`bitpress.encoder.losses.pair_loss`.

    Args:
        encoder: Hugging Face directory of a BERT encoder.
        task: a name of ``bitpress.data.TASK_NAMES``.
        pooling: of sentence embeddings, see :func:`bitpress.recipes.teacher_task.teacher_task`.
        overrides: keys of ``Schedule``, ``max_length`` in tokens, of question answering those of ``SpanSpec``, and of
            multilabel ``threshold``.

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError: nothing is written then.
    """
    settings = FinetuneSettings.from_overrides(overrides, seed)
    known = get_task(task)
    set_for_kind = settings.own(known)
    if pooling is not None and known.kind != EMBEDDING:
        raise TrainingError(f"pooling is {pooling!r}, which sentence embeddings have; add --task embedding")
    spans = SpanSpec(**set_for_kind) if known.kind == QUESTION_ANSWERING else None
    if known.kind == MULTILABEL:
        known = dataclasses.replace(known, **set_for_kind)
    train_set = read_split(train, known, columns, None)
    dev_set = read_split(dev, known, columns, train_set.label_names or None)
    check_pairs(train_set)
    check_same_form(train_set, dev_set)
    model = _new_model(encoder, known, train_set, pooling, seed)
    config = model.config
    max_length = resolve_max_length(settings.max_length, known.max_length, config)
    tokenizer = Tokenizer.from_directory(encoder)
    check_tokenizer(tokenizer, config, encoder)
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
            "head": config.head,
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
        loss_fn=_loss(config),
        evaluate=evaluation(known, encoded[1], dev_set),
        metric=headline(known, dev_set, config.num_labels),
        schedule=settings.schedule,
        run_dir=run.path,
        fingerprint={"max_length": max_length},
        console=console,
        quiet=quiet,
    )
    if len(evaluated(dev_set, encoded[1])[0]) < len(dev_set):
        score = scored(known, logits_of(model.eval(), encoded[1]), encoded[1], dev_set)
    else:  # the weights that are kept are those that gave these metrics
        score = summarize(known, stage.metrics, dev_set, config.num_labels)
    own: dict[str, Any] = {"task": known.name, "max_length": max_length}
    if known.kind == MULTILABEL:
        own["threshold"] = known.threshold
    if spans is not None:
        own["spans"] = dataclasses.asdict(spans) | {THRESHOLD: score["metrics"].get(THRESHOLD)}
    model.config = dataclasses.replace(config, extra={**config.extra, TASK_KEY: own})
    save_classifier(model, out, tokenizer_from=encoder, max_length=max_length)
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


def _new_model(
    encoder: str | Path, task: Task, train_set: Dataset, pooling: str | None, seed: int
) -> SequenceClassifier:
    """The encoder with a head for ``task`` that starts fresh from ``seed``."""
    if task.kind == EMBEDDING:
        return load_classifier(encoder, head=embedding_config(encoder, pooling).head, seed=seed)
    if task.kind == "regression":
        return load_classifier(encoder, num_labels=1, problem_type="regression", head="texts", seed=seed)
    if task.kind == QUESTION_ANSWERING:
        return load_classifier(encoder, id2label=train_set.label_names, head="spans", seed=seed)
    if task.kind == TOKEN_CLASSIFICATION:
        return load_classifier(encoder, id2label=train_set.label_names, head="tokens", seed=seed)
    return load_classifier(
        encoder,
        id2label=train_set.label_names,
        problem_type=f"{'multi' if task.kind == MULTILABEL else 'single'}_label_classification",
        head="texts",
        seed=seed,
    )


def _loss(config: EncoderConfig) -> Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]:
    """As ``run_stage`` takes it."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        return model_loss(config, logits, batch.labels, batch.attention_mask), {}

    return loss

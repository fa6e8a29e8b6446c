"""What a checkpoint is for: its task, by its name, by what bitpress wrote in it, or by its head."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bitpress.artifact import SpanSpec, TaskSpec
from bitpress.data import EMBEDDING, MULTILABEL, QUESTION_ANSWERING, TOKEN_CLASSIFICATION, Task, get_task
from bitpress.data.tasks import TASK_KEY, plain_task
from bitpress.encoder import EncoderConfig, has_head, load_config
from bitpress.errors import TrainingError
from bitpress.recipes.inputs import resolve_max_length
from bitpress.sentence_model import DEFAULT_POOLING, read_sentence_model


@dataclass(frozen=True)
class TeacherTask:
    """What a fine-tuned checkpoint is for. ``label_names`` is None where its names are the generic LABEL_0, LABEL_1."""

    task: Task
    max_length: int
    label_names: list[str] | None
    config: EncoderConfig
    spans: SpanSpec | None = None  # of question answering

    def artifact_task(self, metric: str, pair: bool, spans: SpanSpec | None = None) -> TaskSpec:
        """What an artifact says of the task.

        Args:
            pair: a row of the data is two texts, which an encoder of sentences reads each on its own.
            spans: in place of the checkpoint's.
        """
        kind = self.task.kind
        reads_pairs = pair and kind != EMBEDDING
        return TaskSpec(kind, metric, reads_pairs, spans or self.spans, self.config.normalizes, self.task.threshold)

    @property
    def pooling(self) -> str | None:
        """Of an encoder of sentences its head, one of ``POOLINGS``, else None."""
        return self.config.head if self.config.gives_vectors else None


def kind_of(config: EncoderConfig) -> str:
    """The kind of task (``Task.kind``) that a model of this head answers."""
    if config.answers_questions:
        return QUESTION_ANSWERING
    if config.classifies_tokens:
        return TOKEN_CLASSIFICATION
    if config.gives_vectors:
        return EMBEDDING
    if config.is_multilabel:
        return MULTILABEL
    return "regression" if config.is_regression else "classification"


def teacher_task(path: str | Path, task_name: str | None = None, pooling: str | None = None) -> TeacherTask:
    """The task of the checkpoint in ``path``: ``task_name``, or what bitpress wrote in it, or what its head implies.

    Args:
        pooling: of sentence embeddings, one of ``bitpress.families.POOLINGS``; None: what the files of
            sentence-transformers say, or of a bare encoder without them ``DEFAULT_POOLING``.

    Raises:
        TrainingError: ``task_name`` is of another kind (``Task.kind``) than the head, or needs no pooling.
        UnsupportedModelError: ``path`` is no checkpoint that bitpress runs.
    """
    is_embedding = task_name is not None and get_task(task_name).kind == EMBEDDING
    if pooling is not None and not is_embedding:
        raise TrainingError(f"pooling is {pooling!r}, which sentence embeddings have; add --task embedding")
    config = embedding_config(path, pooling) if is_embedding else load_config(path)
    own: dict[str, Any] = config.extra.get(TASK_KEY) or {}
    kind = kind_of(config)
    named = task_name or own.get("task")
    task = plain_task(kind) if named is None else get_task(named)
    if task.kind != kind:
        raise TrainingError(
            f"task {task.name!r} is {task.kind}, but {path} has a {kind} head with {config.num_labels} label(s)"
        )
    if kind == MULTILABEL:
        task = replace(task, threshold=float(own.get("threshold", task.threshold)))
    names = [config.id2label[index] for index in range(config.num_labels)]
    generic = names == [f"LABEL_{index}" for index in range(len(names))]
    stated = _sentence_length(path, config) if kind == EMBEDDING else None
    own_length = own.get("max_length") if task_name is None else None
    length = resolve_max_length(own_length, stated or task.max_length, config)
    spans = _spans(own.get("spans")) if kind == QUESTION_ANSWERING else None
    return TeacherTask(task, length, None if generic or task.kind == "regression" else names, config, spans)


def _spans(own: Any) -> SpanSpec:
    """What ``bitpress finetune`` left in a checkpoint about questions; of one that it did not write, the defaults."""
    known = {field.name for field in fields(SpanSpec)}
    return SpanSpec(**{key: value for key, value in own.items() if key in known} if isinstance(own, dict) else {})


def embedding_config(path: str | Path, pooling: str | None) -> EncoderConfig:
    """The configuration of the encoder of sentences in ``path``; a bare encoder pools as asked, or by
    ``DEFAULT_POOLING``, and normalizes.

    Raises:
        TrainingError: the checkpoint has the head of another task, and no pooling is asked for.
        UnsupportedModelError: ``path`` is no checkpoint that bitpress runs.
    """
    config = load_config(path, pooling)
    if config.gives_vectors:
        return config
    if has_head(path):
        raise TrainingError(
            f"{path} has a {kind_of(config)} head; to make sentence embeddings of its encoder, say how with --pooling"
        )
    return load_config(path, DEFAULT_POOLING)


def _sentence_length(path: str | Path, config: EncoderConfig) -> int | None:
    """Tokens a text by the files of sentence-transformers, within the model's positions."""
    model = read_sentence_model(path)
    if model is None or model.max_length is None:
        return None
    return min(model.max_length, config.max_position_embeddings)

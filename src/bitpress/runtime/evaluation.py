"""Scores of an artifact on labelled data, whatever the kind of task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bitpress.artifact.schema import ArtifactConfig
from bitpress.data.dataset import Dataset
from bitpress.data.scores import score, summarize, word_logits
from bitpress.data.tasks import EMBEDDING, QUESTION_ANSWERING, TASK_KEY, TASK_NAMES, Task, get_task, plain_task
from bitpress.errors import DataError
from bitpress.runtime.answers import as_answers
from bitpress.runtime.forward import Run
from bitpress.runtime.predictions import answers_of, cuts


def check_data(dataset: Dataset, config: ArtifactConfig) -> None:
    """DataError where the data cannot be scored: no row or label, other labels than the model's, or one text where the
    model reads pairs."""
    kind = config.task.kind
    if kind == EMBEDDING:
        if dataset.pairs is None or len(dataset) == 0:
            raise DataError("evaluation needs pairs of texts, found none", dataset.path)
        return
    if dataset.labels is None or len(dataset) == 0:
        raise DataError("evaluation needs labelled rows, found none", dataset.path)
    if kind not in ("regression", QUESTION_ANSWERING) and dataset.label_names != config.labels:
        raise DataError(
            f"the labels {dataset.label_names} are not the model's, in its order: {config.labels}; read the data "
            "with the model's labels",
            dataset.path,
        )
    if config.task.pair != (dataset.pairs is not None):
        raise DataError(
            f"{what_it_reads(config)}; choose the columns with --text-column and --pair-column", dataset.path
        )


def what_it_reads(config: ArtifactConfig) -> str:
    """For messages."""
    return "this model reads pairs of texts" if config.task.pair else "this model reads one text, not pairs"


def evaluate(run: Run, dataset: Dataset, task: Task, config: ArtifactConfig) -> dict[str, Any]:
    """The summary (:func:`bitpress.data.summarize`) of a run of ``dataset``, and of token classification
    ``unread_words``, of question answering ``cut_questions``."""
    if (spans := config.task.spans) is not None:
        metrics = score(task, as_answers(answers_of(run, spans), spans.no_answer_threshold), dataset)
        unread = {"cut_questions": sum(cuts(run, config))}
    elif dataset.words is not None:
        begun = np.concatenate([encoding.words or [] for encoding in run.of_texts]).astype(np.int64)
        logits = word_logits(run.logits, begun, run.lengths, dataset.word_counts)
        metrics = score(task, logits, dataset)
        unread = {"unread_words": len(logits) - int((begun >= 0).sum())}
    else:
        metrics = score(task, run.logits, dataset)
        unread = {}
    return summarize(task, metrics, dataset, run.logits.shape[1]) | unread


def evaluation_task(config: ArtifactConfig) -> Task:
    """The task that the model was trained for, where ``bitpress finetune`` left its name in config.json (it knows file
    layout and metrics); otherwise the plain task of the model's kind, headed by the model's metric."""
    own = config.model.get(TASK_KEY)
    name = own.get("task") if isinstance(own, dict) else None
    if name in TASK_NAMES and get_task(name).kind == config.task.kind:
        return replace(get_task(name), threshold=config.task.threshold)
    plain = plain_task(config.task.kind)
    if config.task.kind == EMBEDDING:  # what counts depends on the data
        return plain
    return replace(plain, metric=config.task.metric, threshold=config.task.threshold)

"""Scores of torch models on labelled text: teachers, and students in training. The engine scores artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bitpress.artifact import SpanSpec
from bitpress.data import Dataset, Task, score, summarize
from bitpress.data.metrics import confusion_matrix
from bitpress.data.scores import word_logits
from bitpress.data.squad_metrics import Answers
from bitpress.data.tasks import TASK_KEY
from bitpress.encoder import load_classifier
from bitpress.errors import TrainingError
from bitpress.recipes.inputs import (
    DataOptions,
    check_pairs,
    check_tokenizer,
    read_split,
    some_questions,
    tokenize,
    unread_words,
)
from bitpress.recipes.teacher_task import teacher_task
from bitpress.runtime.answers import as_answers, find_answers
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import EncodedDataset, collate

# Padded tokens a batch without gradients: enough to keep the matrix products busy, little enough for the cache.
EVALUATION_TOKENS = 2048
# Questions by which training is evaluated: F1 of so many is known to about 1.2 points (its spread over questions is
# near 0.4), and they take some tens of seconds on one core where all of SQuAD's 10,570 would take ten minutes.
TRAINING_QUESTIONS = 1000


def logits_of(model: nn.Module, dataset: EncodedDataset) -> np.ndarray:
    """Logits float32 in the order of ``dataset``, without gradients: [N, C], or of a head that reads tokens of all of
    them, [sum of lengths, C]; of N pairs of texts on their own [2N, C], those of a pair one after the other. The mode
    of the model is the caller's."""
    dataset = dataset.apart()
    lengths = dataset.lengths
    order = np.argsort(lengths, kind="stable")
    logits: np.ndarray | None = None
    start = 0
    with torch.inference_mode():
        while start < len(order):
            # Sorted by length, so the last text of a batch is its width.
            end = start + 1
            while end < len(order) and (end + 1 - start) * lengths[order[end]] <= EVALUATION_TOKENS:
                end += 1
            batch = collate(dataset, order[start:end], next(model.parameters()).device)
            output = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits.float()
            rows = order[start:end]
            of_tokens = output.dim() == 3
            if of_tokens:
                output, rows = output[batch.attention_mask], dataset.tokens(rows)
            if logits is None:
                count = len(dataset.input_ids) if of_tokens else len(dataset)
                logits = np.empty((count, output.shape[1]), np.float32)
            logits[rows] = output.cpu().numpy()
            start = end
    assert logits is not None, "read_split refuses empty data"
    return logits


def evaluation(task: Task, encoded: EncodedDataset, dataset: Dataset) -> Callable[[nn.Module], dict[str, float]]:
    """The function that ``run_stage`` calls: model → metrics of ``task`` on ``dataset``, which is ``encoded``; on
    :func:`evaluated` of them."""
    dataset, encoded = evaluated(dataset, encoded)
    return lambda model: score(task, answers(logits_of(model, encoded), encoded, dataset), dataset)


def evaluated(dataset: Dataset, encoded: EncodedDataset) -> tuple[Dataset, EncodedDataset]:
    """What of the dev data is evaluated while training goes on: all of it, but of questions TRAINING_QUESTIONS, since
    they have long contexts."""
    return (dataset, encoded) if encoded.windows is None else some_questions(dataset, encoded, TRAINING_QUESTIONS)


def evaluation_note(dataset: Dataset, encoded: EncodedDataset) -> str | None:
    """A line for people where training is evaluated on a part of the dev data."""
    count = len(evaluated(dataset, encoded)[0])
    if count == len(dataset):
        return None
    return (
        f"note: while training, {count:,} of the {len(dataset):,} questions of {dataset.path} choose the best weights; "
        "their score in the end is of all questions"
    )


def answers(
    logits: np.ndarray, encoded: EncodedDataset, dataset: Dataset, spans: SpanSpec | None = None
) -> np.ndarray | Answers:
    """Logits as :func:`logits_of` or the engine gives them → a row a label of ``dataset``, or of questions what was
    found, as ``score`` takes them.

    Args:
        spans: of questions, with the threshold of no answer; None: the one that is best on these questions.
    """
    if (table := encoded.windows) is not None:
        assert dataset.pairs is not None, "questions have contexts"
        assert dataset.answers is not None, "and answers"
        longest = table.spans.max_answer_length
        found = find_answers(
            logits, encoded.lengths, table.questions, table.places, dataset.pairs, longest, may_abstain=False
        )
        if spans is None:
            return as_answers(found, None).tuned(dataset.answers)
        return as_answers(found, spans.no_answer_threshold)
    if encoded.words is None:
        return logits
    return word_logits(logits, encoded.words, encoded.lengths, dataset.word_counts)


def scored(
    task: Task, logits: np.ndarray, encoded: EncodedDataset, dataset: Dataset, spans: SpanSpec | None = None
) -> dict[str, Any]:
    """The summary (:func:`bitpress.data.summarize`) of logits as :func:`logits_of` or the engine gives them; ``spans``
    as for :func:`answers`."""
    metrics = score(task, answers(logits, encoded, dataset, spans), dataset)
    return summarize(task, metrics, dataset, logits.shape[1])


def evaluate_checkpoint(
    path: str | Path,
    dataset_path: str | Path,
    *,
    columns: DataOptions | None = None,
    task: str | None = None,
    pooling: str | None = None,
) -> dict[str, Any]:
    """Score a Hugging Face checkpoint (in fp32, by torch) on labelled text.

    Args:
        task, pooling: see :func:`bitpress.recipes.teacher_task.teacher_task`.

    Returns:
        ``metric``, ``value``, ``n``, ``metrics``, ``majority``; fractions or correlations. Of token classification
        also ``unread_words`` (:func:`bitpress.recipes.inputs.unread_words`), of question answering ``cut_questions``.
        A checkpoint that bitpress did not write answers every question, or where the data has some without an answer,
        those whose margin is at most 0.

    Raises:
        DataError, UnsupportedModelError, TrainingError: data, checkpoint and task do not fit.
    """
    known = teacher_task(path, task, pooling)
    config = known.config
    dataset = read_split(dataset_path, known.task, columns, known.label_names)
    check_pairs(dataset)
    if known.task.kind != "regression" and len(dataset.label_names) > config.num_labels:
        raise TrainingError(
            f"{dataset_path} has {len(dataset.label_names)} labels ({', '.join(dataset.label_names[:8])}), "
            f"{path} has {config.num_labels}; give data with the labels that the model knows"
        )
    tokenizer = Tokenizer.from_directory(path)
    check_tokenizer(tokenizer, config, path)
    encoded = tokenize(tokenizer, dataset, known.max_length, config.pad_token_id or 0, known.spans)
    spans = known.spans
    if spans is not None and TASK_KEY not in config.extra and not all(dataset.answers or ()):
        spans = dataclasses.replace(spans, no_answer_threshold=0.0)
    model = load_classifier(path, head=known.pooling)
    result = scored(known.task, logits_of(model, encoded), encoded, dataset, spans)
    if encoded.windows is not None:
        return result | {"cut_questions": encoded.windows.cut}
    return result if dataset.words is None else result | {"unread_words": unread_words(dataset, encoded)}


def check_label_order(logits: np.ndarray, labels: np.ndarray, names: list[str], path: str | Path) -> None:
    """Refuse a teacher whose outputs are right under another order of the labels than the data's.

    It is refused where it does worse than always answering the most frequent class while one renaming of its classes
    does at least ten points better than that.

    Raises:
        TrainingError: names both orders.
    """
    classes = logits.shape[1]
    counts = confusion_matrix(logits.argmax(axis=1), labels, classes)  # [true, predicted]
    total = counts.sum()
    majority = counts.sum(axis=1).max() / total
    if np.trace(counts) / total >= majority:
        return
    renamed = _best_assignment(counts)
    if counts[renamed, np.arange(classes)].sum() / total < majority + 0.1:
        return
    reads = ", ".join(f"{names[predicted]!r} means {names[true]!r}" for predicted, true in enumerate(renamed))
    raise TrainingError(
        f"the labels of {path} look permuted: accuracy {np.trace(counts) / total:.3f} as they stand, "
        f"{counts[renamed, np.arange(classes)].sum() / total:.3f} if {reads}. "
        "Correct id2label in its config.json, or the labels of the data"
    )


def _best_assignment(counts: np.ndarray) -> np.ndarray:
    """For each predicted class a distinct true class, greedily by count: exact where the model is any good."""
    left = counts.astype(np.float64)
    chosen = np.empty(len(counts), np.int64)
    for _ in range(len(counts)):
        true, predicted = np.unravel_index(left.argmax(), left.shape)
        chosen[predicted] = true
        left[true, :] = -1
        left[:, predicted] = -1
    return chosen

"""Whether the engine says of texts what the student said that it was frozen from."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.recipes.evaluation import logits_of
from bitpress.recipes.replay import is_binarized, replay_logits, replayable, sign_flips
from bitpress.train import EncodedDataset

# Texts on which engine and student are compared: hundreds of thousands of activation codes, in a few seconds.
CHECKED_TEXTS = 256


def engine_vs_student(logits: np.ndarray, student: SequenceClassifier, dev: EncodedDataset) -> dict[str, Any]:
    """Compare the engine's ``logits`` of ``dev``, as :func:`logits_of` orders them, with the student's, on at most
    CHECKED_TEXTS spread over it.

    Returns:
        ``arithmetic`` "engine" (the student replayed with the engine's roundings: no difference is expected) or
        "torch" (where no replay exists: bounded, docs/numerics.md), ``n`` of ``unit`` ("texts", or "tokens" where those
        have logits), ``identical_logits`` (how many with the same bits), ``different_predictions`` (of questions
        the windows whose likeliest start or end is another token), ``max_logit_difference``; of a binarized student
        ``sign_flips``, what torch's roundings decide otherwise.
    """
    dev = dev.apart()
    checked = np.unique(np.linspace(0, len(dev) - 1, min(len(dev), CHECKED_TEXTS)).astype(np.int64))
    exact = replayable(student)
    of_tokens = student.config.classifies_tokens
    rows = dev.tokens(checked) if of_tokens else checked
    expected = replay_logits(student, dev, checked) if exact else logits_of(student, dev.select(checked))
    found = logits[rows]
    said = functools.partial(_predictions, config=student.config, lengths=dev.lengths[checked])
    return {
        "arithmetic": "engine" if exact else "torch",
        "n": len(rows),
        "unit": "tokens" if of_tokens else "texts",
        "identical_logits": int((found == expected).all(axis=1).sum()),
        "different_predictions": int((said(found) != said(expected)).any(axis=1).sum()),
        "max_logit_difference": float(np.abs(found - expected).max()),
        **({"sign_flips": sign_flips(student, dev, checked)} if is_binarized(student) else {}),
    }


def _predictions(logits: np.ndarray, config: EncoderConfig, lengths: np.ndarray) -> np.ndarray:
    """What is said of each row of logits, [n, any number of columns]: the class, or of labels that go together each;
    of the windows of questions, of ``lengths`` tokens, the likeliest start and end; of regression and vectors, which
    say no such thing, always 0."""
    if config.gives_vectors:
        return np.zeros((len(logits), 1), np.int64)
    if config.is_multilabel:
        return logits >= 0
    if config.answers_questions:
        return np.array([part.argmax(axis=0) for part in np.split(logits, np.cumsum(lengths)[:-1])])
    return logits.argmax(axis=1, keepdims=True)

"""Exact match and F1 of answers, as the scripts of SQuAD compute them: evaluate-v1.1.py (Rajpurkar et al. 2016, arXiv
1606.05250, §6.1) where every question has an answer, evaluate-v2.0.py (Rajpurkar et al. 2018, arXiv 1806.03822) where
some have none."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Truths = Sequence[Sequence[str]]  # what annotators answered to each question, any of which is right; empty: it has none

# The one value among the metrics that is no fraction.
THRESHOLD = "no_answer_threshold"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Answers:
    """What a model found for N questions: the best span of each context, "" where there is none; its margin, by how
    much the score of no answer exceeds that of the span; and the margin above which the model gives no answer, None
    where it always gives one."""

    texts: Sequence[str]
    margins: Floats
    threshold: float | None = None

    def given(self) -> list[str]:
        """What the model answers, "" where it gives no answer."""
        if self.threshold is None:
            return list(self.texts)
        return ["" if margin > self.threshold else text for text, margin in zip(self.texts, self.margins, strict=True)]

    def tuned(self, truths: Truths) -> Answers:
        """With the threshold that is best for F1 on these questions; the same where all of them have an answer."""
        if all(truths):
            return self
        return replace(self, threshold=best_threshold(self, _values(self.texts, truths)["f1"], truths)[1])


def squad_metrics(answers: Answers, truths: Truths) -> dict[str, float]:
    """``f1`` and ``exact_match``, means over questions, fractions. Where some questions have no answer, also of both
    kinds of questions alone (``has_answer/f1``, ``no_answer/f1``, …), at the best threshold of each metric
    (``best_f1``, ``best_exact_match``), and the threshold they are of, unless the model always answers."""
    values = _values(answers.given(), truths)
    metrics = {name: float(found.mean()) for name, found in values.items()}
    has_answer = _have_answers(truths)
    if has_answer.all():
        return metrics
    for kind, rows in (("has_answer", has_answer), ("no_answer", ~has_answer)):
        if rows.any():
            metrics |= {f"{kind}/{name}": float(found[rows].mean()) for name, found in values.items()}
    for name, found in _values(answers.texts, truths).items():
        metrics[f"best_{name}"] = best_threshold(answers, found, truths)[0]
    return metrics if answers.threshold is None else metrics | {THRESHOLD: answers.threshold}


def normalize(text: str) -> str:
    """Lower case, without punctuation (ASCII) and English articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(found: str, truth: str) -> float:
    """1 where both are the same after :func:`normalize`, else 0."""
    return float(normalize(found) == normalize(truth))


def answer_f1(found: str, truth: str) -> float:
    """F1 of the words of ``found`` against those of ``truth``, after :func:`normalize`; 0 where they share none."""
    ours, theirs = normalize(found).split(), normalize(truth).split()
    same = (Counter(ours) & Counter(theirs)).total()
    if not same:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def best_threshold(answers: Answers, values: Floats, truths: Truths) -> tuple[float, float]:
    """The best mean of a metric that a threshold gives, as find_best_thresh of evaluate-v2.0.py has it, and that
    threshold: halfway between the margins of the last question that is answered and the first that is not, so that no
    rounding decides about either; where it lies beyond all margins, by one.

    Args:
        values: of each question the metric of ``answers.texts``, [N].
    """
    has_answer = _have_answers(truths)
    # What answering a question adds to the sum, which without any answer is the number of those that have none.
    gain = np.where(has_answer, values, [-1.0 if text else 0.0 for text in answers.texts])
    unanswered = int((~has_answer).sum())
    order = np.argsort(answers.margins, kind="stable")
    margins, sums = answers.margins[order], unanswered + np.cumsum(gain[order])
    is_last = np.append(np.diff(margins) > 0, True)  # questions of one margin are answered together or not at all
    best = int(np.where(is_last, sums, -np.inf).argmax())
    if sums[best] <= unanswered:
        return unanswered / len(values), float(margins[0] - 1)
    beyond = margins[best + 1] if best + 1 < len(margins) else margins[best] + 2
    return float(sums[best] / len(values)), float((margins[best] + beyond) / 2)


def _have_answers(truths: Truths) -> NDArray[np.bool_]:
    return np.array([bool(texts) for texts in truths])


def _values(found: Sequence[str], truths: Truths) -> dict[str, Floats]:
    """F1 and exact match of each question, the best over its answers. By the rules of version 2.0 an answer without a
    word, such as "the", is none, and finding none where there is none is right; by those of version 1.1 words alone
    make an F1."""
    is_open = not all(truths)
    f1, same = [], []
    for text, texts in zip(found, truths, strict=True):
        allowed = [truth for truth in texts if normalize(truth)] if is_open else texts
        same.append(max(exact_match(text, truth) for truth in allowed or ("",)))
        f1.append(max((answer_f1(text, truth) for truth in allowed), default=same[-1]))
    return {"f1": np.array(f1), "exact_match": np.array(same)}

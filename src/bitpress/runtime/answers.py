"""Logits of windows to answers: the best span of a context over all of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bitpress.data.squad_metrics import Answers
from bitpress.runtime.windows import Ints

Floats = NDArray[np.float32]
Scored = dict[tuple[int, int], float]  # [start, end) in the context → score of the span

# Spans among which the probability of the best one is computed (n_best_size of run_squad.py).
N_BEST = 20
# By how much no answer is better where the context has no span at all: more than any logits differ, and finite, so that
# it can be a threshold in JSON.
NO_SPAN = 1e6


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one question: the best span, its [start, end) in the context in characters and its text, all
    empty where there is no span; the probabilities of the span and of no answer; and the margin, by how much the score
    of no answer exceeds the span's.

    The score of a span is the sum of the start logit of its first and the end logit of its last token; that of no
    answer the sum of both of [CLS], of the window where it is lowest. Probabilities are the softmax of scores over the
    N_BEST best spans, and no answer if the model may give none (run_squad.py of Devlin et al. 2018).
    """

    start: int
    end: int
    text: str
    score: float
    null_score: float
    margin: float

    def given(self, threshold: float | None) -> dict[str, Any]:
        """``answer``, ``score``, ``start``, ``end``; "", with the probability of that, where the margin is above the
        threshold (None: of no margin)."""
        if threshold is not None and self.margin > threshold:
            return {"answer": "", "score": self.null_score, "start": 0, "end": 0}
        return {"answer": self.text, "score": self.score, "start": self.start, "end": self.end}


def find_answers(
    logits: Floats,
    lengths: NDArray[np.int64],
    questions: NDArray[np.int64],
    places: Ints,
    contexts: Sequence[str],
    max_answer_length: int,
    may_abstain: bool,
) -> list[Answer]:
    """An answer to each question.

    A span has at most ``max_answer_length`` tokens of the context. The same characters in two windows are one span,
    with the better score. White space at its ends is no part of it, and without anything else it is none.

    Args:
        logits: [tokens, 2] of all windows, one after another: of each token as start and as end.
        lengths: tokens of each window, [N].
        questions: which question each window is of, [N], ascending.
        places: [tokens, 2], of tokens of the context; -1 of others.
        may_abstain: the model may give no answer, which then has a probability.

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the model's outputs contain NaN or infinity")
    found: list[Scored] = [{} for _ in contexts]
    nulls = np.full(len(contexts), np.inf)
    ends = np.cumsum(lengths).tolist()
    scores = logits.astype(np.float64)  # sums of two fp32 are exact
    for question, begin, end in zip(questions.tolist(), [0, *ends], ends, strict=False):
        nulls[question] = min(nulls[question], float(scores[begin].sum()))
        _add_spans(found[question], scores[begin:end], places[begin:end], contexts[question], max_answer_length)
    return [
        _answer(spans, float(null), context, may_abstain)
        for spans, null, context in zip(found, nulls, contexts, strict=True)
    ]


def as_answers(found: Sequence[Answer], threshold: float | None) -> Answers:
    """As they are scored."""
    return Answers([one.text for one in found], np.array([one.margin for one in found]), threshold)


def _add_spans(found: Scored, scores: NDArray[np.float64], places: Ints, context: str, longest: int) -> None:
    """Put the N_BEST spans of a window among those that were ``found`` in others."""
    tokens = np.flatnonzero(places[:, 0] >= 0)
    if not len(tokens):
        return
    beyond = np.full(longest - 1, -np.inf)
    ends = sliding_window_view(np.concatenate([scores[tokens, 1], beyond]), longest)
    spans = (scores[tokens, 0][:, None] + ends).ravel()  # by first token, then by length
    # Equal scores are all kept here, and ordered below: which are the best does not depend on how they are searched.
    least = np.partition(spans, -N_BEST)[-N_BEST] if len(spans) > N_BEST else -np.inf
    best = np.flatnonzero((spans >= least) & (spans > -np.inf))
    for span in best[np.argsort(-spans[best], kind="stable")][:N_BEST].tolist():
        first, length = divmod(span, longest)
        start, end = int(places[tokens[first], 0]), int(places[tokens[first + length], 1])
        text = context[start:end]
        if bare := text.strip():
            start += len(text) - len(text.lstrip())
            key = (start, start + len(bare))
            found[key] = max(found.get(key, -np.inf), float(spans[span]))


def _answer(spans: Scored, null: float, context: str, may_abstain: bool) -> Answer:
    if not spans:
        return Answer(0, 0, "", 0.0, 1.0, NO_SPAN)
    best = sorted(spans.items(), key=lambda item: (-item[1], item[0]))[:N_BEST]
    (start, end), top = best[0]
    scores = np.array([*(score for _, score in best), null if may_abstain else -np.inf])
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    return Answer(start, end, context[start:end], float(probabilities[0]), float(probabilities[-1]), null - top)

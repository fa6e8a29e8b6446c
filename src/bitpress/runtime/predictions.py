"""What a model says of each text, from the logits of a run: one function a kind of task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.schema import ArtifactConfig, SpanSpec
from bitpress.data.label_set_metrics import sigmoid
from bitpress.data.tasks import EMBEDDING, MULTILABEL, QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from bitpress.runtime.answers import Answer, find_answers
from bitpress.runtime.entities import find_entities
from bitpress.runtime.forward import Floats, Run

Predictions = list[dict[str, Any]]

SHORTEST_VECTOR = 1e-12  # a shorter one is divided by this, as torch.nn.functional.normalize does


def predictions(run: Run, config: ArtifactConfig) -> Predictions:
    """A dict a text, in order: the text (and its pair), what :meth:`bitpress.runtime.pipeline.Model.predict` says of
    it, and ``truncated``, True, where its end was not read."""
    said = _SAID[config.task.kind](run, config)
    names = ("question", "context") if config.task.kind == QUESTION_ANSWERING else ("text", "pair")
    columns = [run.texts] if run.pairs is None else [run.texts, run.pairs]
    return [
        dict(zip(names, texts, strict=False)) | answer | ({"truncated": True} if cut else {})
        for texts, answer, cut in zip(zip(*columns, strict=True), said, cuts(run, config), strict=True)
    ]


def answers(run: Run, config: ArtifactConfig) -> Any:
    """What a call of the model gives: of each text as in :func:`predictions`, but of token classification its entities
    alone, of question answering the answer without question and context; of embedding all vectors, [n, d]."""
    if config.task.kind == EMBEDDING:
        return finished(run.logits, config)
    if config.task.kind == TOKEN_CLASSIFICATION:
        return [said["entities"] for said in _entities(run, config)]
    if config.task.kind == QUESTION_ANSWERING:
        return _answer(run, config)
    return predictions(run, config)


def cuts(run: Run, config: ArtifactConfig) -> list[bool]:
    """Of each text, or of question answering of each question, whether its end was not read."""
    if config.task.kind != QUESTION_ANSWERING:
        return [encoding.truncated for encoding in run.of_texts]
    cut = [False] * len(run.texts)
    for window in run.windows:
        cut[window.question] = window.is_cut
    return cut


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def finished(vectors: Floats, config: ArtifactConfig) -> Floats:
    """Vectors [n, d] as the engine gives them → divided by their lengths, where the model does so."""
    if not config.task.normalize:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.float32(SHORTEST_VECTOR))


def answers_of(run: Run, spans: SpanSpec) -> list[Answer]:
    """An answer to each question, also to those that the model gives none to."""
    read = run.windows
    questions = np.array([window.question for window in read], dtype=np.int64)
    places = np.concatenate([window.places for window in read]) if read else np.empty((0, 2), np.int32)
    abstains = spans.no_answer_threshold is not None
    contexts = run.pairs or []
    return find_answers(run.logits, run.lengths, questions, places, contexts, spans.max_answer_length, abstains)


def _class(run: Run, config: ArtifactConfig) -> Predictions:
    found = []
    for probabilities in softmax(run.logits):
        best = int(probabilities.argmax())
        scores = dict(zip(config.labels, probabilities.tolist(), strict=True))
        found.append({"label": config.labels[best], "score": float(probabilities[best]), "scores": scores})
    return found


def _value(run: Run, config: ArtifactConfig) -> Predictions:
    return [{"label": None, "score": float(value), "scores": {}} for value in run.logits[:, 0]]


def _label_set(run: Run, config: ArtifactConfig) -> Predictions:
    said = []
    for probabilities in sigmoid(run.logits):
        scores = dict(zip(config.labels, probabilities.tolist(), strict=True))
        found = [label for label in config.labels if scores[label] >= config.task.threshold]
        said.append({"labels": sorted(found, key=lambda label: -scores[label]), "scores": scores})
    return said


def _entities(run: Run, config: ArtifactConfig) -> Predictions:
    assert run.words is not None, "tags are those of words"
    parts = np.split(run.logits, np.cumsum(run.lengths)[:-1]) if len(run.encodings) else []
    return [
        {"entities": find_entities(text, places, encoding.words or [], softmax(logits), config.labels)}
        for text, places, encoding, logits in zip(run.texts, run.words, run.of_texts, parts, strict=True)
    ]


def _answer(run: Run, config: ArtifactConfig) -> Predictions:
    assert config.task.spans is not None, "checked by parse_config"
    return [answer.given(config.task.spans.no_answer_threshold) for answer in answers_of(run, config.task.spans)]


def _vector(run: Run, config: ArtifactConfig) -> Predictions:
    return [{"vector": vector.tolist()} for vector in finished(run.logits, config)]


_SAID: dict[str, Callable[[Run, ArtifactConfig], Predictions]] = {
    "classification": _class,
    "regression": _value,
    MULTILABEL: _label_set,
    TOKEN_CLASSIFICATION: _entities,
    QUESTION_ANSWERING: _answer,
    EMBEDDING: _vector,
}

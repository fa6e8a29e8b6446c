"""``bitpress.load``: an artifact as a function from texts to predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.reader import read_artifact
from bitpress.artifact.schema import ArtifactConfig, SpanSpec, TaskSpec
from bitpress.data.dataset import Dataset
from bitpress.data.scores import score, summarize, word_logits
from bitpress.data.tasks import (
    QUESTION_ANSWERING,
    TASK_KEY,
    TASK_NAMES,
    TOKEN_CLASSIFICATION,
    Task,
    get_task,
    plain_task,
)
from bitpress.data.words import split_words
from bitpress.errors import ArtifactError, DataError, UnsupportedModelError
from bitpress.runtime.answers import Answer, as_answers, find_answers
from bitpress.runtime.entities import find_entities
from bitpress.runtime.tokenization import Encoding, Tokenizer, Words
from bitpress.runtime.windows import Window, windows

Text = str | tuple[str, str]
Texts = list[str] | list[tuple[str, str]] | list[Text]
Floats = NDArray[np.float32]
Encodings = Sequence[Encoding | Window]


# Texts that are tokenized, ordered by length and run together: enough that texts of like length meet, few enough that
# tokenizing the first chunk, while the engine has nothing to do, does not show.
CHUNK_TEXTS = 512


class ForwardEngine(Protocol):
    """What the pipeline needs of ``bitpress.runtime.engine.Engine``."""

    @property
    def isa(self) -> str: ...

    @property
    def threads(self) -> int: ...

    def forward(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> Floats: ...

    def close(self) -> None: ...


class Model:
    """A loaded artifact. Thread-safe; ``close()`` (or leaving a ``with`` block) frees the engine."""

    def __init__(self, path: str | Path, config: ArtifactConfig, tokenizer: Tokenizer, engine: ForwardEngine) -> None:
        self.path = str(path)
        self.config = config
        self._tokenizer = tokenizer
        self._engine: ForwardEngine | None = engine

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits; of regression one name without meaning."""
        return self.config.labels

    @property
    def task(self) -> TaskSpec:
        """Kind, metric, and whether the model reads pairs of texts."""
        return self.config.task

    @property
    def isa(self) -> str:
        """Instruction set whose kernels run."""
        return self._open_engine().isa

    @property
    def threads(self) -> int:
        """Threads that one call uses."""
        return self._open_engine().threads

    def __call__(
        self,
        texts: Text | Texts | None = None,
        batch_size: int = 32,
        *,
        question: str | None = None,
        context: str | None = None,
    ) -> Any:
        """The answer to one text, or a list of answers to a list of texts, in its order.

        A text is a ``str``, or ``(text, pair)`` for a model of pairs. The answer is what :meth:`predict` gives for it;
        of token classification only its ``entities``, a list, and of question answering ``answer``, ``score``,
        ``start`` and ``end``, with a UserWarning where texts or questions were cut. Raises TypeError for anything else,
        ValueError for one text where the model reads pairs or the other way round.

        ``question`` and ``context``, given by name in place of ``texts``, are the pair of a model that answers
        questions.
        """
        if question is not None or context is not None:
            texts = self._asked(texts, question, context)
        if isinstance(texts, list):
            rows = [self._row(item, position) for position, item in enumerate(texts)]
        else:
            rows = [self._row(texts, None)]
        answers: list[Any] = self._predict(rows, batch_size)
        if self.task.spans is not None:
            cut = sum("truncated" in answer for answer in answers)
            if cut:
                warnings.warn(
                    f"{cut} of {len(rows)} questions are longer than {self.task.spans.max_query_length} tokens, or "
                    f"than half of {self.config.max_length}; the ends of those were not read",
                    stacklevel=2,
                )
            answers = [{key: answer[key] for key in ("answer", "score", "start", "end")} for answer in answers]
        if self.task.kind == TOKEN_CLASSIFICATION:
            cut = sum("truncated" in answer for answer in answers)
            if cut:
                warnings.warn(
                    f"{cut} of {len(rows)} texts are longer than {self.config.max_length} tokens; the ends of those "
                    "were not read",
                    stacklevel=2,
                )
            answers = [answer["entities"] for answer in answers]
        return answers if isinstance(texts, list) else answers[0]

    def predict(self, texts: Texts, batch_size: int = 32) -> list[dict[str, Any]]:
        """A dict a text, in order, with ``text``, ``pair`` if given, and:

        - classification: ``label``, its probability ``score``, and ``scores`` of all labels;
        - regression: ``label`` None, the value ``score``, and ``scores`` empty;
        - token classification: ``entities``, in order, each with ``entity``, ``score``, ``start``, ``end`` and ``text``
          (:func:`bitpress.runtime.entities.find_entities`);
        - question answering: ``answer``, its probability ``score``, ``start`` and ``end`` in the context
          (:class:`bitpress.runtime.answers.Answer`), with ``question`` and ``context`` in place of ``text``, ``pair``;

        and ``truncated``, True, where the text was cut to ``config.max_length`` tokens, or the question to
        ``task.spans.max_query_length``. Texts and errors as in calls.
        """
        return self._predict([self._row(item, position) for position, item in enumerate(texts)], batch_size)

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        batch_size: int = 32,
        words: Sequence[Words] | None = None,
    ) -> Floats:
        """Raw outputs float32 in the order of ``texts``: [N, C], or of token classification [tokens, C], all tokens of
        one text after those of another, special ones included; of question answering so of all windows of a question
        (:func:`bitpress.runtime.windows.windows`). A text's rows do not depend on the others.

        Args:
            words: places of each text's words, which change no output.
        """
        return self._run(texts, pairs, batch_size, words)[1]

    def evaluate(self, dataset: Dataset, batch_size: int = 32, task: Task | None = None) -> dict[str, Any]:
        """Score the model on labelled data: ``metric`` (its name), ``value``, ``n``, ``metrics``, ``majority``.

        ``task`` says which metrics; None: the task that the model was trained for. ``majority`` is the value that
        always answering the most frequent class, no entity, or that there is no answer would get. Of token
        classification ``unread_words`` is the number of words that had no token, most of them beyond
        ``config.max_length``; they count as O. Of question answering ``cut_questions`` is the number of questions whose
        end was not read.

        Raises DataError where the data has no labels, other labels than the model, or one text where the model reads
        pairs.
        """
        if dataset.labels is None or len(dataset) == 0:
            raise DataError("evaluation needs labelled rows, found none", dataset.path)
        has_classes = self.task.kind not in ("regression", QUESTION_ANSWERING)
        if has_classes and dataset.label_names != self.labels:
            raise DataError(
                f"the labels {dataset.label_names} are not the model's, in its order: {self.labels}; read the data "
                "with the model's labels",
                dataset.path,
            )
        if self.task.pair != (dataset.pairs is not None):
            raise DataError(f"{self._wants()}; choose the columns with --text-column and --pair-column", dataset.path)
        task = task or evaluation_task(self.config)
        encodings, logits = self._run(dataset.texts, dataset.pairs, batch_size, dataset.words)
        unread: dict[str, int] = {}
        if self.task.spans is not None:
            assert dataset.pairs is not None, "questions have contexts"
            found, cut = _answers(encodings, logits, dataset.pairs, self.task.spans)
            metrics = score(task, as_answers(found, self.task.spans.no_answer_threshold), dataset)
            return summarize(task, metrics, dataset, logits.shape[1]) | {"cut_questions": sum(cut)}
        if task.kind == TOKEN_CLASSIFICATION:
            begun = np.concatenate([_words(encoding) for encoding in encodings]).astype(np.int64)
            logits = word_logits(logits, begun, _lengths(encodings), dataset.word_counts)
            unread = {"unread_words": len(dataset.labels) - int((begun >= 0).sum())}
        metrics = score(task, logits, dataset)
        return summarize(task, metrics, dataset, logits.shape[1]) | unread

    def close(self) -> None:
        """Free the engine; calls after this raise ValueError."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self.path!r}, labels={self.labels})"

    def _predict(self, rows: list[dict[str, str]], batch_size: int) -> list[dict[str, Any]]:
        first = [row["text"] for row in rows]
        second = [row["pair"] for row in rows] if self.task.pair else None
        of_tokens = self.task.kind == TOKEN_CLASSIFICATION
        words = [split_words(text) for text in first] if of_tokens else None
        encodings, logits = self._run(first, second, batch_size, words)
        if self.task.spans is not None:
            answered, cut = _answers(encodings, logits, second or [], self.task.spans)
            return [
                {"question": row["text"], "context": row["pair"]}
                | answer.given(self.task.spans.no_answer_threshold)
                | ({"truncated": True} if is_cut else {})
                for row, answer, is_cut in zip(rows, answered, cut, strict=True)
            ]
        if words is not None:
            ends = np.cumsum(_lengths(encodings))
            found = [
                find_entities(text, places, _words(encoding), softmax(output), self.labels)
                for text, places, encoding, output in zip(
                    first, words, encodings, np.split(logits, ends[:-1]) if len(ends) else [], strict=True
                )
            ]
            answers: list[dict[str, Any]] = [{"entities": of_text} for of_text in found]
        else:
            answers = [self._answer(output) for output in logits]
        cuts = [{"truncated": True} if isinstance(e, Encoding) and e.truncated else {} for e in encodings]
        return [row | answer | cut for row, answer, cut in zip(rows, answers, cuts, strict=True)]

    def _run(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int, words: Sequence[Words] | None
    ) -> tuple[Encodings, Floats]:
        """Encodings and logits in the order of ``texts``; tokenizes one chunk while the engine runs another."""

        def encode(start: int) -> Encodings:
            part = slice(start, start + CHUNK_TEXTS)
            if self.task.spans is not None:
                assert pairs is not None, "a model of question answering reads pairs"
                return windows(
                    self._tokenizer, texts[part], pairs[part], self.config.max_length, self.task.spans, first=start
                )
            return self._tokenizer.encode(
                texts[part],
                None if pairs is None else pairs[part],
                self.config.max_length,
                None if words is None else words[part],
            )

        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"found {len(texts)} texts and {len(pairs)} pairs; they must be as many")
        if len(texts) <= CHUNK_TEXTS:
            encodings = encode(0)
            return encodings, self._forward(encodings, batch_size)
        read: list[Encoding | Window] = []
        logits = []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="bitpress-tokenize") as ahead:
            pending = ahead.submit(encode, 0)
            for start in range(0, len(texts), CHUNK_TEXTS):
                chunk = pending.result()
                if start + CHUNK_TEXTS < len(texts):
                    pending = ahead.submit(encode, start + CHUNK_TEXTS)
                logits.append(self._forward(chunk, batch_size))
                read += chunk
        return read, np.concatenate(logits)

    def _forward(self, encodings: Encodings, batch_size: int) -> Floats:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        engine = self._open_engine()
        lengths = _lengths(encodings)
        of_tokens = self.task.kind in (TOKEN_CLASSIFICATION, QUESTION_ANSWERING)
        starts = np.cumsum(lengths) - lengths
        logits = np.zeros((int(lengths.sum()) if of_tokens else len(encodings), len(self.labels)), dtype=np.float32)
        # Longest first: texts of like length share a batch, and memory for the largest batch is taken once.
        order = sorted(range(len(encodings)), key=lambda i: -len(encodings[i].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in batch]) if of_tokens else batch
            logits[rows] = engine.forward([encodings[i].ids for i in batch], [encodings[i].type_ids for i in batch])
        return logits

    def _answer(self, logits: Floats) -> dict[str, Any]:
        """Label, score and scores of one row of logits [C]."""
        if self.task.kind == "regression":
            return {"label": None, "score": float(logits[0]), "scores": {}}
        probabilities = softmax(logits)
        best = int(probabilities.argmax())
        scores = dict(zip(self.labels, probabilities.tolist(), strict=True))
        return {"label": self.labels[best], "score": float(probabilities[best]), "scores": scores}

    def _open_engine(self) -> ForwardEngine:
        if self._engine is None:
            raise ValueError("the model is closed")
        return self._engine

    def _wants(self) -> str:
        return "this model reads pairs of texts" if self.task.pair else "this model reads one text, not pairs"

    def _asked(self, texts: object, question: str | None, context: str | None) -> tuple[str, str]:
        """What ``model(question=…, context=…)`` asks; TypeError where that is not a question and its context."""
        if texts is not None or not isinstance(question, str) or not isinstance(context, str):
            raise TypeError(
                "expected texts, or question=… and context=…, each a str; several are a list of (question, context)"
            )
        if self.task.kind != QUESTION_ANSWERING:
            raise TypeError(f"question and context are for question answering; this model's task is {self.task.kind}")
        return question, context

    def _row(self, item: object, position: int | None) -> dict[str, str]:
        """``{"text"}`` or ``{"text", "pair"}`` of one input; TypeError or ValueError where the model cannot read it."""
        where = "" if position is None else f" at position {position}"
        if isinstance(item, str):
            row = {"text": item}
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
            row = {"text": item[0], "pair": item[1]}
        else:
            raise TypeError(
                f"expected a text (str), a pair of texts (tuple of two str) or a list of either, "
                f"found {type(item).__name__}{where}: {item!r:.60}"
            )
        if ("pair" in row) != self.task.pair:
            example = 'model(("text", "pair"))' if self.task.pair else 'model("text"), model(["text", "text"])'
            raise ValueError(f"{self._wants()}: call it as {example}; found {item!r:.60}{where}")
        return row


def _lengths(encodings: Encodings) -> NDArray[np.int64]:
    return np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)


def _words(encoding: Encoding | Window) -> list[int]:
    assert isinstance(encoding, Encoding), "only questions have windows"
    return encoding.words or []


def _answers(
    found: Encodings, logits: Floats, contexts: Sequence[str], spans: SpanSpec
) -> tuple[list[Answer], list[bool]]:
    """An answer to each question, and whether the question was cut."""
    read = [window for window in found if isinstance(window, Window)]
    questions = np.array([window.question for window in read], dtype=np.int64)
    places = np.concatenate([window.places for window in read]) if read else np.empty((0, 2), np.int32)
    cut = [False] * len(contexts)
    for window in read:
        cut[window.question] = window.is_cut
    abstains = spans.no_answer_threshold is not None
    return find_answers(logits, _lengths(found), questions, places, contexts, spans.max_answer_length, abstains), cut


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def evaluation_task(config: ArtifactConfig) -> Task:
    """The task that the model was trained for, where ``bitpress finetune`` left its name in config.json (it knows file
    layout and metrics); otherwise the plain task of the model's kind, headed by the model's metric."""
    own = config.model.get(TASK_KEY)
    name = own.get("task") if isinstance(own, dict) else None
    if name in TASK_NAMES and get_task(name).kind == config.task.kind:
        return get_task(name)
    return replace(plain_task(config.task.kind), metric=config.task.metric)


def load(path: str | Path, threads: int | None = None) -> Model:
    """Load an artifact directory; ``threads`` defaults to the engine's choice (all cores).

    Raises ArtifactError for a malformed artifact, EngineError where the native library cannot run.
    """
    from bitpress.runtime.engine import Engine  # only a call needs the native library

    artifact = read_artifact(path)
    try:
        tokenizer = Tokenizer.from_directory(path)
    except UnsupportedModelError as error:
        raise ArtifactError(f"{error}; the artifact must carry the tokenizer it was made with") from error
    return Model(path, artifact.config, tokenizer, Engine.from_artifact(artifact, threads=threads))

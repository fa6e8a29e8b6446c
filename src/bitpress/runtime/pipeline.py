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
from bitpress.artifact.schema import ArtifactConfig, TaskSpec
from bitpress.data.dataset import Dataset, interleave
from bitpress.data.label_set_metrics import sigmoid
from bitpress.data.scores import score, summarize, word_logits
from bitpress.data.tasks import (
    EMBEDDING,
    MULTILABEL,
    TASK_KEY,
    TASK_NAMES,
    TOKEN_CLASSIFICATION,
    Task,
    get_task,
    plain_task,
)
from bitpress.data.words import split_words
from bitpress.errors import ArtifactError, DataError, UnsupportedModelError
from bitpress.runtime.entities import find_entities
from bitpress.runtime.tokenization import Encoding, Tokenizer, Words

Text = str | tuple[str, str]
Texts = list[str] | list[tuple[str, str]] | list[Text]
Floats = NDArray[np.float32]


# Texts that are tokenized, ordered by length and run together: enough that texts of like length meet, few enough that
# tokenizing the first chunk, while the engine has nothing to do, does not show.
CHUNK_TEXTS = 512
SHORTEST_VECTOR = 1e-12  # a shorter one is divided by this, as torch.nn.functional.normalize does


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
        """Class names in the order of the logits; of regression one name without meaning, of embedding none."""
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

    def __call__(self, texts: Text | Texts, batch_size: int = 32) -> Any:
        """The answer to one text, or a list of answers to a list of texts, in its order.

        A text is a ``str``, or ``(text, pair)`` for a model of pairs. The answer is what :meth:`predict` gives for it;
        of token classification only its ``entities``, a list, with a UserWarning where texts were cut; of embedding
        what :meth:`encode` gives. Raises TypeError for anything else, ValueError for one text where the model reads
        pairs or the other way round.
        """
        if isinstance(texts, list):
            rows = [self._row(item, position) for position, item in enumerate(texts)]
        else:
            rows = [self._row(texts, None)]
        if self.task.kind == EMBEDDING:
            vectors = self._encode([row["text"] for row in rows], batch_size)
            return vectors if isinstance(texts, list) else vectors[0]
        answers: list[Any] = self._predict(rows, batch_size)
        if self.task.kind == TOKEN_CLASSIFICATION:
            self._warn_of_cuts(sum("truncated" in answer for answer in answers), len(rows))
            answers = [answer["entities"] for answer in answers]
        return answers if isinstance(texts, list) else answers[0]

    def encode(self, texts: str | list[str], batch_size: int = 32) -> Floats:
        """Vectors of texts, float32 [n, d], or [d] of a single ``str``; of length 1 where the model normalizes
        (``task.normalize``). A UserWarning says how many texts were cut.

        Raises ValueError where the model was made for another task, TypeError for anything but texts.
        """
        if self.task.kind != EMBEDDING:
            raise ValueError(f"this model was made for {self.task.kind} and gives no vectors: call it, or predict")
        vectors: Floats = self(texts, batch_size)
        return vectors

    def predict(self, texts: Texts, batch_size: int = 32) -> list[dict[str, Any]]:
        """A dict a text, in order, with ``text``, ``pair`` if given, and:

        - classification: ``label``, its probability ``score``, and ``scores`` of all labels;
        - regression: ``label`` None, the value ``score``, and ``scores`` empty;
        - multilabel: ``labels``, those of probability ``task.threshold`` or more, the most probable first, and
          ``scores`` of all labels;
        - embedding: ``vector``, a list of floats (:meth:`encode` gives them as an array);
        - token classification: ``entities``, in order, each with ``entity``, ``score``, ``start``, ``end`` and ``text``
          (:func:`bitpress.runtime.entities.find_entities`);

        and ``truncated``, True, where the text was cut to ``config.max_length`` tokens. Texts and errors as in calls.
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
        one text after those of another, special ones included. Of embedding [N, d], vectors before normalization; with
        ``pairs`` [2N, d], each text's and its pair's. A text's rows do not depend on the others.

        Args:
            words: places of each text's words, which change no output.
        """
        if self.task.kind == EMBEDDING and pairs is not None:
            texts, pairs = interleave(texts, pairs), None
        return self._run(texts, pairs, batch_size, words)[1]

    def evaluate(self, dataset: Dataset, batch_size: int = 32, task: Task | None = None) -> dict[str, Any]:
        """Score the model on labelled data: ``metric`` (its name), ``value``, ``n``, ``metrics``, ``majority``.

        ``task`` says which metrics; None: the task that the model was trained for. ``majority`` is the value that
        always answering the most frequent class, or no entity, would get. Of token classification ``unread_words`` is
        the number of words that had no token, most of them beyond ``config.max_length``; they count as O. Embedding is
        measured on pairs of texts, with scores or without (:mod:`bitpress.data.pair_metrics`).

        Raises DataError where the data has no labels, other labels than the model, or one text where the model reads
        pairs.
        """
        if len(dataset) == 0 or (dataset.labels is None and not (dataset.apart and dataset.pairs is not None)):
            wanted = "pairs of texts" if self.task.kind == EMBEDDING else "labelled rows"
            raise DataError(f"evaluation needs {wanted}, found none", dataset.path)
        if self.task.kind == EMBEDDING:
            task = task or evaluation_task(self.config)
            vectors = self.logits(dataset.texts, dataset.pairs, batch_size)
            return summarize(task, score(task, vectors, dataset), dataset, vectors.shape[1])
        if self.task.kind != "regression" and dataset.label_names != self.labels:
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
        if dataset.words is not None:
            assert dataset.labels is not None, "refused above"
            begun = np.concatenate([encoding.words or [] for encoding in encodings]).astype(np.int64)
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
        if words is not None:
            ends = np.cumsum(_lengths(encodings))
            found = [
                find_entities(text, places, encoding.words or [], softmax(output), self.labels)
                for text, places, encoding, output in zip(
                    first, words, encodings, np.split(logits, ends[:-1]) if len(ends) else [], strict=True
                )
            ]
            answers: list[dict[str, Any]] = [{"entities": of_text} for of_text in found]
        elif self.task.kind == EMBEDDING:
            answers = [{"vector": vector.tolist()} for vector in self._finished(logits)]
        else:
            answers = [self._answer(output) for output in logits]
        cuts = [{"truncated": True} if encoding.truncated else {} for encoding in encodings]
        return [row | answer | cut for row, answer, cut in zip(rows, answers, cuts, strict=True)]

    def _encode(self, texts: Sequence[str], batch_size: int) -> Floats:
        encodings, vectors = self._run(texts, None, batch_size, None)
        self._warn_of_cuts(sum(encoding.truncated for encoding in encodings), len(texts))
        return self._finished(vectors)

    def _finished(self, vectors: Floats) -> Floats:
        """Vectors as the engine gives them → divided by their lengths, where the model does so."""
        if not self.task.normalize:
            return vectors
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.float32(SHORTEST_VECTOR))

    def _warn_of_cuts(self, cut: int, count: int) -> None:
        if cut:
            warnings.warn(
                f"{cut} of {count} texts are longer than {self.config.max_length} tokens; the ends of those "
                "were not read",
                stacklevel=3,
            )

    def _run(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int, words: Sequence[Words] | None
    ) -> tuple[list[Encoding], Floats]:
        """Encodings and logits in the order of ``texts``; tokenizes one chunk while the engine runs another."""

        def encode(start: int) -> list[Encoding]:
            part = slice(start, start + CHUNK_TEXTS)
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
        encodings, logits = [], []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="bitpress-tokenize") as ahead:
            pending = ahead.submit(encode, 0)
            for start in range(0, len(texts), CHUNK_TEXTS):
                chunk = pending.result()
                if start + CHUNK_TEXTS < len(texts):
                    pending = ahead.submit(encode, start + CHUNK_TEXTS)
                logits.append(self._forward(chunk, batch_size))
                encodings += chunk
        return encodings, np.concatenate(logits)

    def _forward(self, encodings: Sequence[Encoding], batch_size: int) -> Floats:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        engine = self._open_engine()
        lengths = _lengths(encodings)
        of_tokens = self.task.kind == TOKEN_CLASSIFICATION
        starts = np.cumsum(lengths) - lengths
        logits = np.zeros(
            (int(lengths.sum()) if of_tokens else len(encodings), self.config.answer_size), dtype=np.float32
        )
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
        if self.task.kind == MULTILABEL:
            scores = dict(zip(self.labels, sigmoid(logits).tolist(), strict=True))
            found = [label for label in self.labels if scores[label] >= self.task.threshold]
            return {"labels": sorted(found, key=lambda label: -scores[label]), "scores": scores}
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


def _lengths(encodings: Sequence[Encoding]) -> NDArray[np.int64]:
    return np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)


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
        return replace(get_task(name), threshold=config.task.threshold)
    plain = plain_task(config.task.kind)
    if config.task.kind == EMBEDDING:  # what counts depends on the data
        return plain
    return replace(plain, metric=config.task.metric, threshold=config.task.threshold)


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

"""``bitpress.load``: an artifact as a function from texts to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.reader import read_artifact
from bitpress.artifact.schema import ArtifactConfig, TaskSpec
from bitpress.data.metrics import compute_metrics, majority_baseline, metric_name
from bitpress.data.readers import Dataset
from bitpress.data.tasks import TASK_KEY, TASK_NAMES, Task, get_task
from bitpress.errors import ArtifactError, DataError, UnsupportedModelError
from bitpress.runtime.tokenization import Encoding, Tokenizer

Text = str | tuple[str, str]
Texts = list[str] | list[tuple[str, str]] | list[Text]
Floats = NDArray[np.float32]


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

    @overload
    def __call__(self, texts: Text, batch_size: int = ...) -> dict[str, Any]: ...

    @overload
    def __call__(self, texts: Texts, batch_size: int = ...) -> list[dict[str, Any]]: ...

    def __call__(self, texts: Text | Texts, batch_size: int = 32) -> dict[str, Any] | list[dict[str, Any]]:
        """Predict one text (a dict) or a list (a list of dicts in its order).

        A text is a ``str``, or ``(text, pair)`` for a model of pairs. A prediction holds ``text``, ``pair`` if given,
        ``label`` with its probability ``score``, and ``scores`` of all labels; for regression ``label`` is None,
        ``score`` the value and ``scores`` empty; ``truncated`` is there, and True, where the text was cut to
        ``config.max_length`` tokens. Raises TypeError for anything else, ValueError for one text where the model reads
        pairs or the other way round.
        """
        if isinstance(texts, list):
            return self._predict([self._row(item, position) for position, item in enumerate(texts)], batch_size)
        return self._predict([self._row(texts, None)], batch_size)[0]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32) -> Floats:
        """Raw outputs float32 [N, C] in the order of ``texts``; a text's row does not depend on the others."""
        return self._run(texts, pairs, batch_size)[1]

    def evaluate(self, dataset: Dataset, batch_size: int = 32, task: Task | None = None) -> dict[str, Any]:
        """Score the model on labelled data: ``metric`` (its name), ``value``, ``n``, ``metrics``, ``majority``.

        ``task`` says which metrics; None: the task that the model was trained for. ``majority`` is the value that
        always answering the most frequent class would get. Raises DataError where the data has no labels, other labels
        than the model, or one text where the model reads pairs.
        """
        if dataset.labels is None or len(dataset) == 0:
            raise DataError("evaluation needs labelled rows, found none", dataset.path)
        if self.task.kind == "classification" and dataset.label_names != self.labels:
            raise DataError(
                f"the labels {dataset.label_names} are not the model's, in its order: {self.labels}; read the data "
                "with the model's labels",
                dataset.path,
            )
        if self.task.pair != (dataset.pairs is not None):
            raise DataError(f"{self._wants()}; choose the columns with --text-column and --pair-column", dataset.path)
        task = task or evaluation_task(self.config)
        logits = self.logits(dataset.texts, dataset.pairs, batch_size)
        metrics = compute_metrics(task, logits, dataset.labels)
        name = metric_name(task.metric, logits.shape[1])
        majority = majority_baseline(task, dataset.labels, logits.shape[1])
        return {"metric": name, "value": metrics[name], "n": len(dataset), "metrics": metrics, "majority": majority}

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
        encodings, logits = self._run(first, second, batch_size)
        predictions: list[dict[str, Any]] = []
        for row, encoding, output in zip(rows, encodings, logits, strict=True):
            cut = {"truncated": True} if encoding.truncated else {}
            predictions.append(row | self._answer(output) | cut)
        return predictions

    def _run(self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int) -> tuple[list[Encoding], Floats]:
        """Encodings and logits [N, C] in the order of ``texts``; tokenizes one chunk while the engine runs another."""

        def encode(start: int) -> list[Encoding]:
            part = slice(start, start + CHUNK_TEXTS)
            return self._tokenizer.encode(
                texts[part], None if pairs is None else pairs[part], max_length=self.config.max_length
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
        logits = np.zeros((len(encodings), len(self.labels)), dtype=np.float32)
        # Longest first: texts of like length share a batch, and memory for the largest batch is taken once.
        order = sorted(range(len(encodings)), key=lambda i: -len(encodings[i].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            logits[batch] = engine.forward([encodings[i].ids for i in batch], [encodings[i].type_ids for i in batch])
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
    return replace(get_task(config.task.kind), metric=config.task.metric)


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

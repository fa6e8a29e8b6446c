"""``bitpress.load``: an artifact as a function from texts to predictions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bitpress.artifact.reader import read_artifact
from bitpress.artifact.schema import ArtifactConfig, TaskSpec
from bitpress.data.dataset import Dataset, interleave
from bitpress.data.tasks import EMBEDDING, QUESTION_ANSWERING, TOKEN_CLASSIFICATION, Task
from bitpress.data.words import split_words
from bitpress.errors import ArtifactError, UnsupportedModelError
from bitpress.runtime.evaluation import check_data, evaluate, evaluation_task, what_it_reads
from bitpress.runtime.forward import Floats, ForwardEngine, Run, run
from bitpress.runtime.predictions import answers, cuts, predictions
from bitpress.runtime.tokenization import Tokenizer, Words

Text = str | tuple[str, str]
Texts = list[str] | list[tuple[str, str]] | list[Text]


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
        ``start`` and ``end``, with a UserWarning where texts or questions were cut; of embedding what :meth:`encode`
        gives. Raises TypeError for anything else, ValueError for one text where the model reads pairs or the other way
        round.

        ``question`` and ``context``, given by name in place of ``texts``, are the pair of a model that answers
        questions.
        """
        if question is not None or context is not None:
            texts = self._asked(texts, question, context)
        if isinstance(texts, list):
            rows = [self._row(item, position) for position, item in enumerate(texts)]
        else:
            rows = [self._row(texts, None)]
        found = self._run_rows(rows, batch_size)
        if self.task.kind in (TOKEN_CLASSIFICATION, QUESTION_ANSWERING, EMBEDDING):  # others say it in the answer
            self._warn_of_cuts(sum(cuts(found, self.config)), len(rows))
        given = answers(found, self.config)
        return given if isinstance(texts, list) else given[0]

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
        - question answering: ``answer``, its probability ``score``, ``start`` and ``end`` in the context
          (:class:`bitpress.runtime.answers.Answer`), with ``question`` and ``context`` in place of ``text``, ``pair``;

        and ``truncated``, True, where the text was cut to ``config.max_length`` tokens, or the question to
        ``task.spans.max_query_length``. Texts and errors as in calls.
        """
        rows = [self._row(item, position) for position, item in enumerate(texts)]
        return predictions(self._run_rows(rows, batch_size), self.config)

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        batch_size: int = 32,
        words: Sequence[Words] | None = None,
    ) -> Floats:
        """Raw outputs float32 in the order of ``texts``: [N, C], or of token classification [tokens, C], all tokens of
        one text after those of another, special ones included; of question answering so of all windows of a question
        (:func:`bitpress.runtime.windows.windows`). Of embedding [N, d], vectors before normalization; with ``pairs``
        [2N, d], each text's and its pair's. A text's rows do not depend on the others.

        Args:
            words: places of each text's words, which change no output.
        """
        return self._run(texts, pairs, batch_size, words).logits

    def evaluate(self, dataset: Dataset, batch_size: int = 32, task: Task | None = None) -> dict[str, Any]:
        """Score the model on labelled data: ``metric`` (its name), ``value``, ``n``, ``metrics``, ``majority``.

        ``task`` says which metrics; None: the task that the model was trained for. ``majority`` is the value that
        always answering the most frequent class, no entity, or that there is no answer would get. Of token
        classification ``unread_words`` is the number of words that had no token, most of them beyond
        ``config.max_length``; they count as O. Of question answering ``cut_questions`` is the number of questions whose
        end was not read. Embedding is measured on pairs of texts, with scores or without
        (:mod:`bitpress.data.pair_metrics`).

        Raises DataError where the data has no labels, other labels than the model, or one text where the model reads
        pairs.
        """
        check_data(dataset, self.config)
        found = self._run(dataset.texts, dataset.pairs, batch_size, dataset.words)
        return evaluate(found, dataset, task or evaluation_task(self.config), self.config)

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

    def _run_rows(self, rows: list[dict[str, str]], batch_size: int) -> Run:
        first = [row["text"] for row in rows]
        second = [row["pair"] for row in rows] if self.task.pair else None
        of_tokens = self.task.kind == TOKEN_CLASSIFICATION
        return self._run(first, second, batch_size, [split_words(text) for text in first] if of_tokens else None)

    def _run(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int, words: Sequence[Words] | None
    ) -> Run:
        if self.task.kind == EMBEDDING and pairs is not None:  # each on its own
            texts, pairs = interleave(texts, pairs), None
        return run(self._open_engine(), self._tokenizer, self.config, texts, pairs, words, batch_size)

    def _warn_of_cuts(self, cut: int, count: int) -> None:
        """As if the caller of the method that calls this had warned."""
        if not cut:
            return
        what = f"texts are longer than {self.config.max_length} tokens"
        if (spans := self.task.spans) is not None:
            what = (
                f"questions are longer than {spans.max_query_length} tokens, or than half of {self.config.max_length}"
            )
        warnings.warn(f"{cut} of {count} {what}; the ends of those were not read", stacklevel=3)

    def _open_engine(self) -> ForwardEngine:
        if self._engine is None:
            raise ValueError("the model is closed")
        return self._engine

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
            raise ValueError(f"{what_it_reads(self.config)}: call it as {example}; found {item!r:.60}{where}")
        return row


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

"""From files to what training reads: labelled data and tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitpress.artifact import SpanSpec
from bitpress.data import TOKEN_CLASSIFICATION, Dataset, Task, read_dataset
from bitpress.data.tag_schemes import check_tag_names
from bitpress.encoder import EncoderConfig
from bitpress.errors import DataError, TrainingError
from bitpress.runtime.tokenization import Tokenizer
from bitpress.runtime.windows import NOWHERE, Window, WindowTable, windows
from bitpress.train import EncodedDataset

# Questions that are tokenized at once: what the tokenizer makes of a context takes far more memory than its token ids.
CHUNK_QUESTIONS = 512


@dataclass(frozen=True)
class DataOptions:
    """Columns by name, where the common names do not find them."""

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None


def read_split(path: str | Path, task: Task, columns: DataOptions | None, label_names: Sequence[str] | None) -> Dataset:
    """A labelled file. DataError names file, line and column of what is wrong; also where there is no row.

    Raises:
        TrainingError: words are to be labelled, and ``label_names``, a checkpoint's, are no tags of entities.
    """
    columns = columns or DataOptions()
    if task.kind == TOKEN_CLASSIFICATION and label_names:
        try:
            check_tag_names(label_names)
        except ValueError as error:
            raise TrainingError(
                f"{error}. Correct id2label in the checkpoint's config.json; a recipe that trains nothing also packs "
                "other tags, without labelled text"
            ) from None
    dataset = read_dataset(
        path,
        task,
        text_column=columns.text_column,
        pair_column=columns.pair_column,
        label_column=columns.label_column,
        label_names=list(label_names) if label_names else None,
    )
    if not len(dataset):
        raise DataError("has no rows; give at least one labelled text", path)
    return dataset


def check_same_form(train_set: Dataset, dev_set: Dataset) -> None:
    """TrainingError where one file has pairs of texts and the other single texts."""
    if (train_set.pairs is None) != (dev_set.pairs is None):
        raise TrainingError(
            f"{train_set.path} and {dev_set.path} differ: one has pairs of texts, the other single texts; "
            "give both the same columns, or name them with --text-column and --pair-column"
        )


def check_pairs(dataset: Dataset) -> None:
    """DataError where texts that stand on their own come without a second one, which alone says how near they are."""
    if dataset.apart and dataset.pairs is None:
        raise DataError(
            "has single texts, and how near vectors are to each other is learned and measured on pairs; give two "
            "columns of text, or name them with --text-column and --pair-column",
            dataset.path,
        )


def tokenize(
    tokenizer: Tokenizer, dataset: Dataset, max_length: int, pad_id: int, spans: SpanSpec | None = None
) -> EncodedDataset:
    """Token ids of every text (and pair), special tokens included, cut to ``max_length``; where words have labels, the
    first token of each has its word's. Scores of pairs become cosines (:func:`as_cosines`). Of questions the windows
    (:func:`bitpress.runtime.windows.windows`).

    Args:
        spans: of questions, how their contexts are read; None: as by default.

    Raises:
        DataError: the tokenizer makes no token of any word of a text.
    """
    if dataset.answers is not None:
        return _tokenize_questions(tokenizer, dataset, max_length, pad_id, spans or SpanSpec())
    texts, pairs = (dataset.sentences, None) if dataset.apart else (dataset.texts, dataset.pairs)
    encodings = tokenizer.encode(texts, pairs, max_length, dataset.words)
    ids, type_ids = [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]
    if dataset.apart:
        encoded = EncodedDataset.from_sequences(ids, type_ids, None, pad_id=pad_id)
        scores = None if dataset.labels is None else as_cosines(dataset.labels)
        return encoded if dataset.pairs is None else encoded.in_pairs(scores)
    if dataset.words is None:
        return EncodedDataset.from_sequences(ids, type_ids, dataset.labels, pad_id=pad_id)
    words = [encoding.words or [] for encoding in encodings]
    for number, (text, begun) in enumerate(zip(dataset.texts, words, strict=True), 1):
        if max(begun, default=-1) < 0:
            raise DataError(
                f"text {number}, {text[:60]!r}: the tokenizer makes no token of any of its words; remove it",
                dataset.path,
            )
    return EncodedDataset.from_sequences(
        ids, type_ids, dataset.labels, pad_id=pad_id, words=words, word_counts=dataset.word_counts
    )


def _tokenize_questions(
    tokenizer: Tokenizer, dataset: Dataset, max_length: int, pad_id: int, spans: SpanSpec
) -> EncodedDataset:
    assert dataset.pairs is not None, "questions have contexts"
    assert dataset.labels is not None, "and answers"
    ids, types, places = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    lengths, labels, questions = list[int](), list[tuple[int, int]](), list[int]()
    cut, held = set[int](), set[int]()
    for start in range(0, len(dataset), CHUNK_QUESTIONS):
        part = slice(start, start + CHUNK_QUESTIONS)
        read: list[Window] = windows(
            tokenizer, dataset.texts[part], dataset.pairs[part], max_length, spans, dataset.labels[part], first=start
        )
        lengths += [len(window.ids) for window in read]
        ids += [np.array(window.ids, np.int32) for window in read]
        types += [np.array(window.type_ids, np.int32) for window in read]
        places += [window.places for window in read]
        labels += [window.answer for window in read]
        questions += [window.question for window in read]
        cut |= {window.question for window in read if window.is_cut}
        held |= {window.question for window in read if window.answer != NOWHERE}
    unheld = int((dataset.labels[:, 0] >= 0).sum()) - len(held)
    table = WindowTable(np.array(questions, np.int64), np.concatenate(places), spans, len(cut), unheld)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return EncodedDataset(
        np.concatenate(ids), np.concatenate(types), offsets, np.array(labels, np.int64), pad_id, windows=table
    )


def some_questions(dataset: Dataset, encoded: EncodedDataset, count: int) -> tuple[Dataset, EncodedDataset]:
    """``count`` questions spread over a dataset, and their windows; the dataset itself where it has no more."""
    table = encoded.windows
    assert table is not None, "questions have windows"
    assert dataset.pairs is not None, "and contexts"
    assert dataset.answers is not None, "and answers"
    if len(dataset) <= count:
        return dataset, encoded
    chosen = np.linspace(0, len(dataset) - 1, count).astype(np.int64)
    part = encoded.select(np.flatnonzero(np.isin(table.questions, chosen)))
    assert part.windows is not None, "select keeps them"
    renumbered = np.searchsorted(chosen, part.windows.questions)
    picked = replace(
        dataset,
        texts=[dataset.texts[i] for i in chosen],
        pairs=[dataset.pairs[i] for i in chosen],
        labels=None if dataset.labels is None else dataset.labels[chosen],
        ids=None if dataset.ids is None else [dataset.ids[i] for i in chosen],
        answers=[dataset.answers[i] for i in chosen],
    )
    return picked, replace(part, windows=replace(part.windows, questions=renumbered))


def as_cosines(scores: np.ndarray) -> np.ndarray:
    """Scores of pairs, float32 [N], as the cosines that vectors are to have: as they are where all lie within −1..1,
    otherwise linearly, the lowest 0 and the highest 1."""
    low, high = float(scores.min()), float(scores.max())
    if low >= -1 and high <= 1:
        return scores
    return np.asarray((scores - low) / ((high - low) or 1.0), np.float32)


def unread_words(dataset: Dataset, encoded: EncodedDataset) -> int:
    """Words of token classification that have no token: beyond ``max_length``, or of characters that the tokenizer
    drops. They are no part of training, and count as O in scores."""
    return 0 if encoded.words is None else int(dataset.word_counts.sum()) - int((encoded.words >= 0).sum())


def unread_note(dataset: Dataset, encoded: EncodedDataset, max_length: int) -> str | None:
    """A line about :func:`unread_words`, or about questions that are not read as they are, for people; None where
    everything is read."""
    if encoded.windows is not None:
        return _questions_note(dataset, encoded.windows, max_length)
    count = unread_words(dataset, encoded)
    if not count:
        return None
    return (
        f"note: {count:,} of {int(dataset.word_counts.sum()):,} words of {dataset.path} are not read and count as no "
        f"entity: they lie beyond {max_length} tokens (--max-length), or the tokenizer drops all of their characters"
    )


def _questions_note(dataset: Dataset, table: WindowTable, max_length: int) -> str | None:
    notes = []
    if table.cut:
        notes.append(
            f"the ends of {table.cut:,} questions are not read: they are longer than {table.spans.max_query_length} "
            f"tokens (max_query_length), or than half of {max_length} (--max-length)"
        )
    if table.unheld:
        notes.append(
            f"the answers to {table.unheld:,} questions are in no window whole, and not learned: they are longer than "
            "windows overlap (doc_stride), or the tokenizer drops all of their characters"
        )
    return f"note: of the {len(dataset):,} questions of {dataset.path}, {'; '.join(notes)}" if notes else None


def resolve_max_length(wanted: int | None, task_length: int, config: EncoderConfig) -> int:
    """Tokens a text: what was asked for, or the task's own, within the model's positions.

    Raises:
        TrainingError: more was asked for than the model has positions, or too few for any text.
    """
    if wanted is None:
        return min(task_length, config.max_position_embeddings)
    if not 4 <= wanted <= config.max_position_embeddings:
        raise TrainingError(
            f"max_length is {wanted}; the model has {config.max_position_embeddings} positions. "
            f"Set it between 4 and {config.max_position_embeddings}"
        )
    return wanted


def check_tokenizer(tokenizer: Tokenizer, config: EncoderConfig, path: str | Path) -> None:
    """TrainingError where the tokenizer has ids that the word embedding lacks."""
    if tokenizer.vocabulary_size > config.vocab_size:
        raise TrainingError(
            f"{path}: the tokenizer has {tokenizer.vocabulary_size} tokens, the word embedding {config.vocab_size} "
            "rows; tokenizer and weights must belong to the same model"
        )


def file_digest(path: str | Path) -> str:
    """sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(checkpoint: str | Path) -> str:
    """sha256 of each weight file of a checkpoint directory, in the order of their names, joined by "+"."""
    files = sorted([*Path(checkpoint).glob("*.safetensors"), *Path(checkpoint).glob("pytorch_model*.bin")])
    return "+".join(file_digest(file) for file in files)

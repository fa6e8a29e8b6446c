"""Texts through tokenizer and engine: one chunk is tokenized while the engine runs another."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.schema import ArtifactConfig
from bitpress.data.tasks import QUESTION_ANSWERING, TOKEN_CLASSIFICATION
from bitpress.runtime.tokenization import Encoding, Tokenizer, Words
from bitpress.runtime.windows import Window, windows

Floats = NDArray[np.float32]
Encodings = Sequence[Encoding | Window]

# Texts that are tokenized, ordered by length and run together: enough that texts of like length meet, few enough that
# tokenizing the first chunk, while the engine has nothing to do, does not show.
CHUNK_TEXTS = 512


class ForwardEngine(Protocol):
    """What is needed of ``bitpress.runtime.engine.Engine``."""

    @property
    def isa(self) -> str: ...

    @property
    def threads(self) -> int: ...

    def forward(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> Floats: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """Texts, how they were read and what the engine gave for them.

    texts, pairs  [N]; of question answering questions and contexts
    words         places of each text's words, where the model tags words
    encodings     one a text; of question answering all windows of a question after those of another
    logits        float32 [N, columns], or where tokens have logits [tokens of all encodings, C]
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    words: Sequence[Words] | None
    encodings: Encodings
    logits: Floats

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each encoding."""
        return token_counts(self.encodings)

    @property
    def of_texts(self) -> list[Encoding]:
        """The encodings of a model of any task but question answering."""
        return [encoding for encoding in self.encodings if isinstance(encoding, Encoding)]

    @property
    def windows(self) -> list[Window]:
        """The encodings of a model of question answering."""
        return [encoding for encoding in self.encodings if isinstance(encoding, Window)]


def run(
    engine: ForwardEngine,
    tokenizer: Tokenizer,
    config: ArtifactConfig,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    words: Sequence[Words] | None,
    batch_size: int,
) -> Run:
    """Read and run all texts; encodings and logits are in their order.

    Raises:
        ValueError: texts and pairs are not as many, or there is no batch of that size.
    """

    def encode(start: int) -> Encodings:
        part = slice(start, start + CHUNK_TEXTS)
        if config.task.spans is not None:
            assert pairs is not None, "a model of question answering reads pairs"
            return windows(tokenizer, texts[part], pairs[part], config.max_length, config.task.spans, first=start)
        return tokenizer.encode(
            texts[part],
            None if pairs is None else pairs[part],
            config.max_length,
            None if words is None else words[part],
        )

    if pairs is not None and len(pairs) != len(texts):
        raise ValueError(f"found {len(texts)} texts and {len(pairs)} pairs; they must be as many")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
    if len(texts) <= CHUNK_TEXTS:
        encodings = encode(0)
        return Run(texts, pairs, words, encodings, _forward(engine, config, encodings, batch_size))
    read: list[Encoding | Window] = []
    logits = []
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="bitpress-tokenize") as ahead:
        pending = ahead.submit(encode, 0)
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = pending.result()
            if start + CHUNK_TEXTS < len(texts):
                pending = ahead.submit(encode, start + CHUNK_TEXTS)
            logits.append(_forward(engine, config, chunk, batch_size))
            read += chunk
    return Run(texts, pairs, words, read, np.concatenate(logits))


def token_counts(encodings: Encodings) -> NDArray[np.int64]:
    """Tokens of each encoding."""
    return np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)


def _forward(engine: ForwardEngine, config: ArtifactConfig, encodings: Encodings, batch_size: int) -> Floats:
    lengths = token_counts(encodings)
    of_tokens = config.task.kind in (TOKEN_CLASSIFICATION, QUESTION_ANSWERING)
    starts = np.cumsum(lengths) - lengths
    logits = np.zeros((int(lengths.sum()) if of_tokens else len(encodings), config.answer_size), dtype=np.float32)
    # Longest first: texts of like length share a batch, and memory for the largest batch is taken once.
    order = sorted(range(len(encodings)), key=lambda i: -len(encodings[i].ids))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in batch]) if of_tokens else batch
        logits[rows] = engine.forward([encodings[i].ids for i in batch], [encodings[i].type_ids for i in batch])
    return logits

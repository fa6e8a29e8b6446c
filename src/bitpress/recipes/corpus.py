"""Raw text as training data: read as a stream, tokenized once into memory-mapped files, packed to full length.

A sequence is [CLS], tokens of consecutive texts, [SEP]. Nothing is masked. A small share of sequences is shorter, as in
BERT's own data, so that a student also sees what short texts look like.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.data import iter_texts
from bitpress.errors import DataError
from bitpress.recipes.inputs import file_digest
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import EncodedDataset

SHORT_SHARE = 0.1  # of sequences, whose length is drawn below the full one
SHORTEST = 8
_AT_ONCE = 1024  # texts a call of the tokenizer
_LONGEST_TEXT = 1 << 20  # tokens; no text is cut


def corpus_files(patterns: Sequence[str | Path]) -> list[Path]:
    """The files that paths and globs name, each once, sorted.

    Raises:
        DataError: a pattern names no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        names = [Path(name) for name in glob.glob(str(pattern), recursive=True)]
        files = [name for name in names if name.is_file()]
        if not files:
            raise DataError("no such file; a path or a glob of text files, also .gz, is expected", pattern)
        found.update(files)
    return sorted(found)


def packed_corpus(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    length: int,
    cache: Path,
    *,
    pad_id: int = 0,
    max_tokens: int | None = None,
    seed: int = 0,
) -> EncodedDataset:
    """All texts of ``files`` as sequences of at most ``length`` tokens, special ones included, from ``cache`` if they
    are there already.

    Args:
        cache: a directory for a folder a corpus, named by the fingerprint of files, tokenizer and settings.
        max_tokens: read no further once there are as many.
        seed: of the shorter sequences' lengths.

    Raises:
        DataError: no text in any file.
    """
    first, last = _ends(tokenizer)
    settings = {
        "files": [[str(path.name), file_digest(path)] for path in files],
        "tokenizer": tokenizer.digest(),
        "length": length,
        "max_tokens": max_tokens,
        "seed": seed,
        "short_share": SHORT_SHARE,
    }
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    folder = cache / fingerprint[:32]
    if not folder.is_dir():
        _write(folder, settings, _sequences(files, tokenizer, length, first, last, max_tokens, seed))
    offsets = np.load(folder / "offsets.npy")
    if len(offsets) < 2:
        shutil.rmtree(folder)
        raise DataError("there is no text in it", files[0])
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    # One zero, seen as often as there are tokens.
    type_ids = np.broadcast_to(np.zeros(1, np.int32), tokens.shape)
    return EncodedDataset(tokens, type_ids, offsets, None, pad_id)


def split_off(dataset: EncodedDataset, share: float, most: int) -> tuple[EncodedDataset, EncodedDataset]:
    """The first sequences, and the last ones held out: ``share`` of them, at most ``most``, at least one each.

    Raises:
        DataError: there is but one sequence.
    """
    count = len(dataset)
    if count < 2:
        raise DataError("the corpus has a single sequence of tokens; at least two are needed, one is held out")
    held = min(max(1, round(share * count)), most, count - 1)
    return _part(dataset, 0, count - held), _part(dataset, count - held, count)


def _part(dataset: EncodedDataset, begin: int, end: int) -> EncodedDataset:
    offsets = dataset.offsets[begin : end + 1]
    rows = slice(int(offsets[0]), int(offsets[-1]))
    return EncodedDataset(dataset.input_ids[rows], dataset.type_ids[rows], offsets - offsets[0], None, dataset.pad_id)


def _ends(tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids that stand before and after a text."""
    ids = tokenizer.encode([""])[0].ids
    if len(ids) != 2:
        raise DataError(f"the tokenizer puts {len(ids)} special tokens around a text; 2 are expected")
    return ids[0], ids[1]


def _sequences(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    length: int,
    first: int,
    last: int,
    max_tokens: int | None,
    seed: int,
) -> Iterator[list[int]]:
    rng = np.random.default_rng(seed)
    buffer: list[int] = []
    total, room = 0, _room(rng, length)
    for ids in _token_lists(files, tokenizer):
        buffer += ids
        while len(buffer) >= room:
            yield [first, *buffer[:room], last]
            total += room + 2
            del buffer[:room]
            if max_tokens is not None and total >= max_tokens:
                return
            room = _room(rng, length)
    if buffer:
        yield [first, *buffer, last]


def _room(rng: np.random.Generator, length: int) -> int:
    """Tokens of text in the next sequence."""
    if length > SHORTEST and rng.random() < SHORT_SHARE:
        return int(rng.integers(SHORTEST, length)) - 2
    return length - 2


def _token_lists(files: Sequence[Path], tokenizer: Tokenizer) -> Iterator[list[int]]:
    for path in files:
        texts = (text if isinstance(text, str) else " ".join(text) for text in iter_texts(path))
        while some := list(islice(texts, _AT_ONCE)):
            for encoding in tokenizer.encode([text for text in some if text.strip()], max_length=_LONGEST_TEXT):
                yield encoding.ids[1:-1]


def _write(folder: Path, settings: dict[str, Any], sequences: Iterator[list[int]]) -> None:
    """Written beside the folder and renamed, so that an interrupted run leaves nothing half-read."""
    staging = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        lengths = []
        with (staging / "tokens.raw").open("wb") as file:
            for sequence in sequences:
                lengths.append(len(sequence))
                file.write(np.asarray(sequence, np.int32).tobytes())
        _as_npy(staging / "tokens.raw", staging / "tokens.npy", sum(lengths))
        np.save(staging / "offsets.npy", np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]))
        (staging / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if folder.is_dir():  # another process was faster
            return
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _as_npy(raw: Path, target: Path, count: int) -> None:
    """A header before the bytes that were streamed; without tokens an empty array."""
    with target.open("wb") as file, raw.open("rb") as source:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int32)), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(source, file, 1 << 24)
    raw.unlink()

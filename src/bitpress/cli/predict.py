"""``bitpress predict``: texts in, labels, entities, answers or vectors out, by the engine."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitpress.bench.models import require_artifact
from bitpress.cli import options
from bitpress.cli.output import emit_json, note
from bitpress.errors import BitpressError, DataError

if TYPE_CHECKING:
    from bitpress.runtime.pipeline import Model

Text = str | tuple[str, str]  # a text, or a text and the second text of its pair

# Results appear in steps of this many texts: enough to fill the engine, few enough to watch a slow stream.
BATCH = 32


def predict(
    model: Annotated[Path, typer.Argument(help="An artifact.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Each argument is one text.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="The second text of a pair; one for each TEXT, in order.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", help="A file of texts: plain text (one a line), csv, tsv or jsonl, also .gz."),
    ] = None,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write vectors to, float32 of texts x columns as numpy saves them: .npy."),
    ] = None,
    threads: options.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text, one a line.")] = False,
) -> None:
    """Classify texts, find the entities in them, answer questions, or make vectors of texts: arguments, a file, or the
    lines of stdin. A question is a TEXT and its context the --pair."""
    items = _texts(texts, pair, input_file, text_column, pair_column)
    require_artifact(model, "predict")
    import bitpress

    loaded = bitpress.load(model, threads=threads)
    is_embedding = loaded.task.kind == "embedding"
    if out is not None and not is_embedding:
        raise BitpressError(f"--out is given, but {model} gives no vectors; leave it out")
    if is_embedding and out is None and not as_json:
        raise BitpressError(f"{model} gives vectors; give --out FILE.npy, or --json")
    if out is not None:
        _write_vectors(loaded, items, model, out)
        return
    asked: Iterator[tuple[str | None, Text]] = ((None, item) for item in items)
    if loaded.task.spans is not None and input_file is not None:
        from bitpress.data.questions import iter_questions, may_hold_questions

        if may_hold_questions(input_file):
            asked = ((q.id, (q.question, q.context)) for q in iter_questions(input_file, text_column, pair_column))
    while batch := list(islice(asked, BATCH)):
        for _, item in batch:
            _check_shape(item, loaded.task.pair, model)
        for (name, _), result in zip(batch, loaded.predict([item for _, item in batch], batch_size=BATCH), strict=True):
            if as_json:
                emit_json(result if name is None else {"id": name, **result}, indent=None)
            else:
                print(_lines(result))
        sys.stdout.flush()


def _write_vectors(loaded: Model, items: Iterator[Text], model: Path, out: Path) -> None:
    """All vectors to one file, which appears when it is complete."""
    import numpy as np

    texts: list[str] = []
    for item in items:
        _check_shape(item, False, model)
        assert isinstance(item, str), "checked just now"
        texts.append(item)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = loaded.encode(texts, batch_size=BATCH)
    for warning in caught:
        note(f"note: {warning.message}")
    partial = out.with_name(f".{out.name}.tmp")
    with partial.open("wb") as file:
        np.save(file, vectors)
    partial.replace(out)
    note(f"{len(vectors):,} vectors of {vectors.shape[1]} columns in {out}")


def _texts(
    texts: list[str] | None,
    pairs: list[str] | None,
    input_file: Path | None,
    text_column: str | None,
    pair_column: str | None,
) -> Iterator[Text]:
    """The texts from the one source that was given."""
    if texts and input_file is not None:
        raise BitpressError("both TEXT arguments and --input are given; give one of them")
    for text in (*(texts or ()), *(pairs or ())):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"the argument {text!r:.60} is not valid UTF-8; pass it as UTF-8 or by --input")
    if texts and pairs:
        if len(pairs) != len(texts):
            raise BitpressError(f"{len(texts)} TEXT and {len(pairs)} --pair are given; give one --pair for each TEXT")
        return iter(list(zip(texts, pairs, strict=True)))
    if texts:
        return iter(texts)
    if pairs:
        raise BitpressError("--pair goes with TEXT arguments; in a file the second text is named by --pair-column")
    from bitpress.data import iter_texts

    if input_file is None and sys.stdin.isatty():
        note("reading one text a line from the terminal; Ctrl-D ends")
    return iter_texts("-" if input_file is None else input_file, text_column=text_column, pair_column=pair_column)


def _check_shape(item: Text, wants_pair: bool, model: Path) -> None:
    if wants_pair and isinstance(item, str):
        raise DataError(
            f"{model} was trained on pairs of texts and {item!r:.60} comes alone; give the second text by --pair, "
            "or in a file by --pair-column"
        )
    if not wants_pair and not isinstance(item, str):
        raise DataError(
            f"{model} was trained on single texts and {item[0]!r:.60} comes with a second one; leave out --pair, "
            "or name the one column of a file by --text-column"
        )


def _lines(result: dict[str, Any]) -> str:
    """``positive  0.987  a film that lingers``, tabs between; a regression has no label. Of entities first the text,
    then a line each: ``  person  0.991  0  12  Ada Lovelace``. Of an answer ``Ada  0.931  0  3  Who wrote it?``, where
    there is none ``(no answer)``. Of labels that go together all that were found, ``-`` for none: ``angry 0.912, late
    0.634  where is my order``."""
    if "entities" in result:
        found = (
            f"  {one['entity']}\t{one['score']:.3f}\t{one['start']}\t{one['end']}\t{one['text']}"
            for one in result["entities"]
        )
        return "\n".join([result["text"] + _cut(result), *found])
    if "answer" in result:
        place = f"{result['score']:.3f}\t{result['start']}\t{result['end']}"
        return f"{result['answer'] or '(no answer)'}\t{place}\t{result['question']}{_cut(result)}"
    if "labels" in result:
        labels = ", ".join(f"{label} {result['scores'][label]:.3f}" for label in result["labels"]) or "-"
        return f"{labels}\t{_text(result)}"
    label = "" if result["label"] is None else f"{result['label']}\t"
    return f"{label}{result['score']:.3f}\t{_text(result)}"


def _text(result: dict[str, Any]) -> str:
    pair = f"\t{result['pair']}" if "pair" in result else ""
    return f"{result['text']}{pair}{_cut(result)}"


def _cut(result: dict[str, Any]) -> str:
    return "\t(cut to the model's length)" if result.get("truncated") else ""

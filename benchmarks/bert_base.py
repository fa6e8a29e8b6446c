"""Bytes and latency of the ternary BERT-base shape against PyTorch and ONNX Runtime, in one interleaved run.

    pip install -c constraints.txt '.[peers]'
    python benchmarks/bert_base.py [--work DIR] [--threads N] [--repeats N] [--json FILE]

Random weights of BERT-base-uncased's shape (12 layers, hidden 768, vocabulary 30,522): bytes and speed do not depend on
their values. The peers get the settings that serve them best (onnx_peer.py). Every engine runs in a process of its own,
all take turns burst by burst.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import onnx_peer
from bitpress.bench.latency import Cell, available_threads, measure
from bitpress.bench.models import weight_bytes

PACKINGS = {"bitpress ternary, 2 bits": "2bit", "bitpress ternary, 1.6 bits": "trits"}
GRID = (Cell(1, 16), Cell(1, 64), Cell(1, 128), Cell(1, 384), Cell(8, 128))
MIB = 2**20


def build(work: Path) -> dict[str, Path]:
    """Teacher, artifacts and ONNX models below ``work``; what is there already is kept."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification

    from bitpress.recipes.runner import post_training_artifact

    teacher = work / "teacher"
    if not (teacher / "tokenizer.json").is_file():
        torch.manual_seed(0)
        BertForSequenceClassification(BertConfig()).save_pretrained(teacher)
        tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.save(str(teacher / "tokenizer.json"))
    found = {}
    for name, packing in PACKINGS.items():
        found[name] = work / packing
        if not found[name].is_dir():
            post_training_artifact(teacher, "ternarybert", found[name], {"packing": packing})
    found["PyTorch fp32"] = teacher
    for kind, file in onnx_peer.export(teacher, work / "onnx").items():
        folder = work / kind
        folder.mkdir(exist_ok=True)
        shutil.copy(teacher / "config.json", folder)
        if not (folder / "model.onnx").exists():
            (folder / "model.onnx").hardlink_to(file)
        found[f"ONNX Runtime {kind}{' dynamic' if kind == 'int8' else ''}"] = folder
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bert-base"))
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write everything that was measured to this file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    models = build(options.work)
    sizes = {name: weight_bytes(models[name]) for name in PACKINGS}
    fp32 = weight_bytes(models["PyTorch fp32"])
    for name, size in sizes.items():
        print(f"{name}: model.safetensors {size:,} bytes = {size / MIB:.2f} MiB, {fp32 / size:.1f}x smaller than fp32")

    worker = str(Path(__file__).with_name("onnx_worker.py"))
    result = measure(
        models,
        GRID,
        threads=options.threads,
        repeats=options.repeats,
        progress=lambda line: print(f"  {line}", file=sys.stderr),
        programs={name: (worker,) for name in models if name.startswith("ONNX")},
    )
    machine = result["machine"]
    print(f"\n{machine['cpu']}, {options.threads} threads; median ms (min) of {options.repeats} passes")
    print(f"processor time taken by other jobs meanwhile: {100 * result['busy_elsewhere']:.0f} %")
    width = max(map(len, models))
    print(" " * width, *(f"{f'{cell.batch}x{cell.length}':>18}" for cell in GRID))
    for name in models:
        rows = [row for row in result["rows"] if row["model"] == name]
        print(f"{name:{width}}", *(f"{row['median_ms']:>9.1f} ({row['min_ms']:>5.1f})" for row in rows))
    print("\nhow many times faster than the peer, by medians:")
    first = next(iter(PACKINGS))
    for name in models:
        ratios = [row["ratio"] for row in result["ratios"] if row["vs"] == name]
        if ratios:
            print(f"{first} / {name:{width}}", *(f"{ratio:>8.2f}" for ratio in ratios))
    if options.json is not None:
        options.json.write_text(json.dumps(result | {"model_bytes": sizes, "fp32_bytes": fp32}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

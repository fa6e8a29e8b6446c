"""The layering of the package, read from its imports. Oracle: the table below, which docs/architecture.md explains."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "bitpress"

# Who may import whom. `errors`, `families`, `sentence_model` and the package itself (lazy names,
# version) may be imported by everyone.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "families": set(),
    "sentence_model": {"families"},
    "data": set(),
    "artifact": set(),
    "encoder": set(),
    "quantize": {"encoder"},
    "distill": {"encoder", "quantize"},
    "slim": {"encoder", "quantize"},
    "augment": {"encoder", "runtime"},
    "sensitivity": {"data", "encoder", "quantize", "train"},
    "runtime": {"artifact", "data"},
    "train": {"data", "runtime"},
    "freeze": {"quantize", "encoder", "artifact"},
    "bench": {"artifact", "data", "runtime"},
    "recipes": {
        "artifact",
        "augment",
        "data",
        "distill",
        "encoder",
        "freeze",
        "quantize",
        "runtime",
        "sensitivity",
        "slim",
        "train",
    },
    "cli": {"artifact", "bench", "data", "recipes", "runtime"},
}
# What `pip install bitpress` without extras must be able to import.
LIGHT = ("bitpress", "bitpress.artifact", "bitpress.runtime", "bitpress.data", "bitpress.cli", "bitpress.bench")
HEAVY = ("torch", "transformers", "accelerate", "pydantic", "yaml", "safetensors", "sklearn", "scipy")


def _module(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """First parts below `bitpress` of every import in a file, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the project writes absolute ones"
            names = [node.module or ""]
            if node.module == "bitpress":
                names = [f"bitpress.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("bitpress.")}
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_dependency_rule(path: Path) -> None:
    module = _module(path)
    assert module in ALLOWED, f"{module} is new: give it a place in the dependency rule"
    extra = _imports(path) - ALLOWED[module] - {module, "errors", "families", "sentence_model", "__version__"}
    assert not extra, f"{path.relative_to(SOURCE)} may not import {sorted(extra)}"


def test_the_rule_has_no_circle() -> None:
    remaining = dict(ALLOWED)
    while remaining:
        free = [module for module, needs in remaining.items() if not needs & remaining.keys()]
        assert free, f"circle among {sorted(remaining)}"
        for module in free:
            del remaining[module]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

"""bitpress presses a fine-tuned BERT encoder into a few bits a weight and runs it fast on the CPU already there.

Importing it never imports torch: ``load`` needs numpy and tokenizers only, ``compress`` imports torch when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitpress.recipes.runner import augment, compress, finetune, pack, pretrain
    from bitpress.runtime.pipeline import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "augment", "compress", "finetune", "load", "pack", "pretrain"]

_HOME = {
    "load": "bitpress.runtime.pipeline",
    "Model": "bitpress.runtime.pipeline",
    "compress": "bitpress.recipes.runner",
    "augment": "bitpress.recipes.runner",
    "finetune": "bitpress.recipes.runner",
    "pack": "bitpress.recipes.runner",
    "pretrain": "bitpress.recipes.runner",
}


def __getattr__(name: str) -> Any:
    """Resolve the public names on first use (PEP 562), so that importing bitpress stays light."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'bitpress' has no attribute {name!r}")

"""The sentiment set that is part of the package; sentiment/README.md says how it was made and under which licence."""

from __future__ import annotations

from pathlib import Path

SENTIMENT_LABELS = ("negative", "positive")


def sentiment() -> tuple[Path, Path]:
    """Paths of the bundled sentiment set: (train, dev), gzipped tsv with the columns ``sentence label domain``."""
    folder = Path(__file__).resolve().parent / "sentiment"
    return folder / "train.tsv.gz", folder / "dev.tsv.gz"

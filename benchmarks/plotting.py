"""matplotlib, set up to draw the pictures of docs/."""

from __future__ import annotations

from typing import Any


def svg_pyplot() -> Any:
    """matplotlib.pyplot that writes SVG; the same figures give the same bytes, saved with metadata={"Date": None}."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bitpress"
    from matplotlib import pyplot

    return pyplot

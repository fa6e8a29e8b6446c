"""Whether padded positions count in a loss."""

from __future__ import annotations

from torch import Tensor

from bitpress.errors import RecipeError

PADDINGS = ("exclude", "include")


def excludes(padding: str, mask: Tensor | None) -> bool:
    """Whether a loss must leave out positions: with padding "exclude", where there is a mask.

    Raises:
        RecipeError: another padding.
    """
    if padding not in PADDINGS:
        raise RecipeError(f"padding is {padding!r}; allowed: {', '.join(PADDINGS)}")
    return padding == "exclude" and mask is not None

"""Students of other shapes than their teachers: which heads and neurons matter, and models without the others."""

from __future__ import annotations

from bitpress.slim.importance import Importance, importance
from bitpress.slim.narrow import narrow

__all__ = ["Importance", "importance", "narrow"]

"""Students of other shapes than their teachers: which heads and neurons matter, and models without the others."""

from __future__ import annotations

from bitpress.slim.importance import Importance, importance
from bitpress.slim.narrow import narrow
from bitpress.slim.shapes import StudentShape, fresh_student, from_layers

__all__ = ["Importance", "StudentShape", "fresh_student", "from_layers", "importance", "narrow"]

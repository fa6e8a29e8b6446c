"""Students of other shapes than their teachers: which heads and neurons matter, and models without the others."""

from __future__ import annotations

from bitpress.slim.embeddings import take_embeddings
from bitpress.slim.importance import Importance, importance
from bitpress.slim.narrow import narrow
from bitpress.slim.shapes import EmbeddingsFrom, StudentShape, fresh_student, from_layers

__all__ = [
    "EmbeddingsFrom",
    "Importance",
    "StudentShape",
    "fresh_student",
    "from_layers",
    "importance",
    "narrow",
    "take_embeddings",
]

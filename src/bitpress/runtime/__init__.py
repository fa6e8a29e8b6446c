"""Runs an artifact: tokenization, the native engine's binding, task pipelines. Never imports torch or transformers."""

from __future__ import annotations

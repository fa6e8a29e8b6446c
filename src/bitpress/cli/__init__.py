"""The command line. ``app`` is the typer application, ``main`` what the ``bitpress`` script calls."""

from __future__ import annotations

from bitpress.cli.app import app, main

__all__ = ["app", "main"]

"""Errors a user can meet. Each says what was found, what is allowed and what to do."""

from __future__ import annotations

from pathlib import Path


class BitpressError(Exception):
    """Base of every error that bitpress raises on purpose; the command line prints it without a traceback."""


class DataError(BitpressError):
    """A data file cannot be read as asked. Names file, line and column where they are known."""

    def __init__(
        self, message: str, path: str | Path | None = None, line: int | None = None, column: str | None = None
    ) -> None:
        self.path, self.line, self.column = path, line, column
        where = "".join(
            part
            for part in (
                f"{path}" if path is not None else "",
                f":{line}" if line is not None else "",
                f" (column {column!r})" if column is not None else "",
            )
        )
        super().__init__(f"{where}: {message}" if where else message)


class ArtifactError(BitpressError):
    """An artifact is malformed. Names the tensor (or file) and what was expected."""

    def __init__(self, message: str, tensor: str | None = None) -> None:
        self.tensor = tensor
        super().__init__(f"tensor {tensor!r}: {message}" if tensor is not None else message)


class UnsupportedModelError(BitpressError):
    """A checkpoint is of a kind that bitpress does not run; names what was found and what works."""


class RecipeError(BitpressError):
    """A recipe or an override is not valid; names the key, the value and the allowed values."""


class EngineError(BitpressError):
    """The native engine refused a call or cannot run on this machine."""


class TrainingError(BitpressError):
    """Training cannot start or continue: a teacher that fails its check, a run directory of another run."""

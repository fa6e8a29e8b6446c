"""The directory beside an output that remembers how it was made: checkpoints, scalars, and the finished result."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bitpress.errors import TrainingError
from bitpress.recipes.inputs import file_digest

WEIGHTS = "model.safetensors"


class RunDirectory:
    """``<out>.run``: what a command needs to continue after a kill, and to know that it has nothing left to do."""

    def __init__(self, out: str | Path, settings: dict[str, Any]) -> None:
        """
        Args:
            out: the directory that the command writes.
            settings: JSON values that determine it.

        Raises:
            TrainingError: ``out`` or the run directory is of other settings, names the first that differs; or one of
                them is a file.
        """
        self.out = Path(out)
        # "." and ".." have no name that the run directory could stand beside.
        named = self.out if self.out.name not in ("", "..") else self.out.resolve()
        if not named.name:
            raise TrainingError(f"{self.out} has no directory around it to hold the run; choose another --out")
        self.path = named.with_name(named.name + ".run")
        self.settings = json.loads(json.dumps(settings))
        for path in (self.out, self.path):
            if path.exists() and not path.is_dir():
                raise TrainingError(f"{path} is a file where a directory is to be written; choose another --out")
        stored = self._read("settings.json")
        if stored is None:
            if self.out.exists() and any(self.out.iterdir()):
                raise TrainingError(
                    f"{self.out} exists and no run of bitpress is recorded in {self.path}; "
                    "choose another --out, or move it away"
                )
        elif stored != self.settings:
            self._refuse(stored)

    def begin(self) -> None:
        """Create the directory and record the settings, once nothing speaks against starting."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._write("settings.json", self.settings)

    def finished(self) -> dict[str, Any] | None:
        """The result, if the output was finished with these settings and still has the weights it had then."""
        result = self._read("result.json")
        weights = self.out / WEIGHTS
        if result is None or not weights.is_file() or file_digest(weights) != result["weights_sha256"]:
            return None
        recorded: dict[str, Any] = result["result"]
        return recorded

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result of a complete output."""
        self._write("result.json", {"weights_sha256": file_digest(self.out / WEIGHTS), "result": result})

    def _refuse(self, stored: dict[str, Any]) -> None:
        flat_stored, flat = _flatten(stored), _flatten(self.settings)
        key = next(key for key in [*flat, *flat_stored] if flat.get(key) != flat_stored.get(key))
        raise TrainingError(
            f"{self.path} is of a run with {key} = {flat_stored.get(key)!r}; this one has {flat.get(key)!r}. "
            f"Choose another --out, or delete {self.out} and {self.path} to start again"
        )

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value

    def _write(self, name: str, value: dict[str, Any]) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in _flatten(part, f"{prefix}{key}.").items()}
    if isinstance(value, list):
        return {k: v for index, part in enumerate(value) for k, v in _flatten(part, f"{prefix}{index}.").items()}
    return {prefix.rstrip("."): value}

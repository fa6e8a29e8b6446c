"""Checkpoints that survive kill −9 at any instant.

Design goals: what is visible under its final name is complete; what is damaged later is noticed; a resumed run reads
exactly what the interrupted one wrote. Non-goals: elastic or sharded checkpoints.

A stage owns one directory:

    stage.json                 the configuration that must match, and where the stage starts in the scalars
    checkpoint-00000120/       model.safetensors, optimizer.safetensors, manifest.json; the last two are kept
    best-00000100.safetensors  best weights so far; a checkpoint names the one it belongs to
    finished/                  model.safetensors (the best weights), manifest.json; checkpoints are then removed
    lock                       held while a process trains here

Every directory is written under a temporary name, its files synced, renamed, its parent synced. The manifest carries
the sha256 of every file and of itself. No pickle: safetensors and JSON only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bitpress.errors import TrainingError

KEPT = 2
_TEMPORARY = ".tmp-"


class _InvalidError(Exception):
    """A stored file is damaged; the text says how."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, tied tensors once; the tensors themselves, not copies."""
    seen: set[tuple[object, ...]] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
            if tensor.numel() == 0 or key not in seen:
                seen.add(key)
                tensors[name] = tensor
    return tensors


@torch.no_grad()
def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies ``tensors`` into the model in place, so that ties and optimizer references stay.

    Raises:
        TrainingError: names or shapes are not those of the model.
    """
    own = model_tensors(model)
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    if wrong:
        raise TrainingError(
            f"the stored weights belong to another model: they differ in {', '.join(wrong[:3])} "
            f"({len(wrong)} tensors in all). Use another output directory or delete this one to start over."
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """What :meth:`CheckpointStore.newest` read and verified. Tensors are on the CPU."""

    step: int
    state: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor] | None


class CheckpointStore:
    """The directory of one stage. ``warn`` receives one line for every damaged entry that is passed over."""

    def __init__(self, directory: Path, warn: Callable[[str], None]) -> None:
        self.directory, self._warn = directory, warn
        self._best_digests: dict[str, str] = {}
        directory.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for this process; the kernel lets go when the process dies, however it dies.

        Raises:
            TrainingError: another process holds it.
        """
        with open(self.directory / "lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TrainingError(
                    f"another process is training in {self.directory}. Wait for it, stop it, or use another directory."
                ) from None
            for leftover in self.directory.glob(f"{_TEMPORARY}*"):
                _remove(leftover)
            yield

    def begin(self, fingerprint: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
        """Records a new stage, or checks that a stage begun earlier has the same configuration.

        Returns:
            ``start`` as recorded the first time.

        Raises:
            TrainingError: the configuration differs; the text names each key with both values.
        """
        path = self.directory / "stage.json"
        fingerprint = json.loads(json.dumps(fingerprint))
        try:
            recorded = json.loads(path.read_text())
        except FileNotFoundError:
            self._write_json(path, {"fingerprint": fingerprint, "start": start})
            return start
        except ValueError:
            raise TrainingError(f"{path} is damaged. Delete {self.directory} to start this stage over.") from None
        check_fingerprint(recorded["fingerprint"], fingerprint, self.directory)
        recorded_start: dict[str, Any] = recorded["start"]
        return recorded_start

    def save(
        self,
        step: int,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        best: Mapping[str, Tensor] | None,
        best_step: int | None,
        state: dict[str, Any],
    ) -> None:
        """Writes a checkpoint and, if it is not on disk yet, the best weights; then drops what is no longer needed."""
        best_entry = None
        if best is not None:
            name = f"best-{best_step:08d}.safetensors"
            if name not in self._best_digests:
                temporary = self.directory / f"{_TEMPORARY}{name}"
                self._best_digests[name] = _write_tensors(temporary, best)
                os.replace(temporary, self.directory / name)
                _sync(self.directory)
            best_entry = {"file": name, "sha256": self._best_digests[name]}
        payload = {"step": step, "state": state, "best": best_entry}
        self._write_directory(_checkpoint_name(step), {"model": model, "optimizer": optimizer}, payload)
        self._prune()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte checks out; damaged newer ones are named, then removed."""
        for path in reversed(self._checkpoints()):
            try:
                payload, tensors = _read_directory(path, ("model", "optimizer"))
                best = None
                if payload["best"] is not None:
                    name, digest = payload["best"]["file"], payload["best"]["sha256"]
                    best = _read_tensors(self.directory / name, digest)
                    self._best_digests = {name: digest}
                return Checkpoint(payload["step"], payload["state"], tensors["model"], tensors["optimizer"], best)
            except _InvalidError as error:
                self._warn(f"skipped and removed the damaged checkpoint {path}: {error}")
                _remove(path)
        return None

    def finish(self, model: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Records the stage's result; from here on :meth:`finished` returns it."""
        self._write_directory("finished", {"model": model}, {"state": state})
        self.clear()

    def finished(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """(state, weights) of a finished stage, or None."""
        path = self.directory / "finished"
        if not path.exists():
            return None
        try:
            payload, tensors = _read_directory(path, ("model",))
        except _InvalidError as error:
            self._warn(f"skipped and removed the damaged result {path}: {error}; the stage is trained again")
            _remove(path)
            return None
        return payload["state"], tensors["model"]

    def clear(self) -> None:
        """Removes every checkpoint and best file."""
        for path in [*self._checkpoints(), *self.directory.glob("best-*.safetensors")]:
            _remove(path)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.directory.glob("checkpoint-*"))

    def _prune(self) -> None:
        checkpoints = self._checkpoints()
        for path in checkpoints[:-KEPT]:
            _remove(path)
        needed = {_best_name(path) for path in checkpoints[-KEPT:]}
        for path in self.directory.glob("best-*.safetensors"):
            if path.name not in needed:
                _remove(path)
                self._best_digests.pop(path.name, None)

    def _write_directory(self, name: str, files: Mapping[str, Mapping[str, Tensor]], payload: dict[str, Any]) -> None:
        temporary, final = self.directory / f"{_TEMPORARY}{name}", self.directory / name
        _remove(temporary)
        temporary.mkdir()
        digests = {}
        for stem, tensors in files.items():
            digests[f"{stem}.safetensors"] = _write_tensors(temporary / f"{stem}.safetensors", tensors)
        body = {**payload, "files": digests}
        with open(temporary / "manifest.json", "w") as handle:
            json.dump({**body, "sha256": _json_digest(body)}, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())
        _sync(temporary)
        _remove(final)
        os.rename(temporary, final)
        _sync(self.directory)

    def _write_json(self, path: Path, value: dict[str, Any]) -> None:
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        with open(temporary, "w") as handle:
            json.dump(value, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync(self.directory)


def check_fingerprint(recorded: dict[str, Any], current: dict[str, Any], directory: Path) -> None:
    """Raises TrainingError, naming every differing key, unless the two configurations are equal."""
    old, new = dict(_flat(recorded)), dict(_flat(current))
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key, _ABSENT) != new.get(key, _ABSENT)]
    if not differing:
        return
    lines = [f"  {key}: found {_show(new, key)}, expected {_show(old, key)}" for key in differing]
    raise TrainingError(
        f"{directory} was begun with another configuration:\n"
        + "\n".join(lines)
        + "\nRun it with the expected values to resume, use another output directory, or delete this one to start over."
    )


_ABSENT = object()


def _show(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "nothing"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _checkpoint_name(step: int) -> str:
    return f"checkpoint-{step:08d}"


def _best_name(checkpoint: Path) -> str | None:
    """The best file that a checkpoint needs; of a damaged one nothing is needed, for it is never used."""
    try:
        best = json.loads((checkpoint / "manifest.json").read_bytes())["best"]
        return None if best is None else str(best["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
    _sync(path)
    return _file_digest(path)


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        if _file_digest(path) != digest:
            raise _InvalidError(f"{path.name} does not match its checksum")
        return load_file(path)
    except OSError as error:
        raise _InvalidError(f"{path.name} cannot be read ({error.strerror})") from None


def _read_directory(path: Path, stems: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        digest = manifest.pop("sha256")
        files = manifest["files"]
    except OSError as error:
        raise _InvalidError(f"manifest.json cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _InvalidError("manifest.json is not a manifest") from None
    if digest != _json_digest(manifest):
        raise _InvalidError("manifest.json does not match its checksum")
    return manifest, {stem: _read_tensors(path / f"{stem}.safetensors", files[f"{stem}.safetensors"]) for stem in stems}


def _json_digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """A directory disappears under its name at once; a kill in between leaves only what `locked` sweeps away."""
    if path.is_dir():
        doomed = path.with_name(f"{_TEMPORARY}removed-{path.name.removeprefix(_TEMPORARY)}")
        if doomed != path:
            shutil.rmtree(doomed, ignore_errors=True)
            path = path.rename(doomed)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

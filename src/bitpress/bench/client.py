"""Owner's side of ``bitpress.bench.worker``: starts the process, talks to it, turns its failures into errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bitpress import errors

# Lines of a dead worker's stderr that an error quotes: enough for the exception and the frame that raised it.
_STDERR_LINES = 5


# The program that runs artifacts and checkpoints. A benchmark of another engine brings its own, which answers alike.
PROGRAM = ("-m", "bitpress.bench.worker")


class Worker:
    """One worker process. A context manager: leaving it ends the process."""

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int,
        once: str | None = None,
        texts: bool = False,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Starts the process on the model directory ``path``.

        ``once``: run this text, report and end. ``texts``: serve lists of texts instead of batches of token ids.
        """
        self.path = Path(path)
        command = [sys.executable, *program, str(path), "--threads", str(threads)]
        if once is not None:
            # one argument, so that a text that starts with a dash is not taken for an option
            command += [f"--once={once}"]
        if texts:
            command += ["--texts"]
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            env=_environment(threads),
        )

    def receive(self) -> dict[str, Any]:
        """The next reply.

        Raises:
            BitpressError: the error that the worker met, under its own type, or how the worker died.
            ModuleNotFoundError: the worker lacks a package.
        """
        assert self._process.stdout is not None  # opened as a pipe above
        line = self._process.stdout.readline()
        if not line:
            raise errors.EngineError(self._obituary())
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise _as_exception(message["error"], self.path)
        return message

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its reply; raises as ``receive`` does."""
        assert self._process.stdin is not None  # opened as a pipe above
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise errors.EngineError(self._obituary()) from None
        return self.receive()

    def close(self) -> None:
        """Ends the process, by force if it is in the middle of a pass."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # an unsent request of a process that is gone

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _obituary(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode("utf-8", "replace").strip().splitlines()[-_STDERR_LINES:]
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return "\n  ".join([f"{self.path}: the process that runs this model {how}", *last])


def _environment(threads: int) -> dict[str, str]:
    """The worker's environment: every OpenMP-like pool gets the same number of threads, and no library goes online."""
    count = str(threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
    }


def _as_exception(error: dict[str, Any], path: Path) -> Exception:
    if error["module"] is not None:
        return ModuleNotFoundError(error["message"], name=error["module"])
    kind = getattr(errors, error["type"], None)
    if isinstance(kind, type) and issubclass(kind, errors.BitpressError):
        return kind(error["message"])
    return errors.EngineError(f"{path}: {error['type']}: {error['message']}")

"""What a person sees while a stage trains: a live bar on a terminal, one plain line an evaluation elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

# Columns of a terminal in which stage, bar, steps and the full description fit side by side.
FULL_WIDTH = 110


@dataclass(frozen=True)
class ProgressEvent:
    """Where a stage stands. ``metric`` is the last value measured, None before the first evaluation."""

    stage: str
    step: int
    total: int
    loss: float | None
    metric_name: str
    metric: float | None
    best_metric: float | None
    tokens_per_second: float
    seconds_left: float
    evaluated: bool


class ProgressDisplay:
    """A context manager; ``on_progress`` gets every event whatever is shown."""

    def __init__(
        self,
        console: Console,
        stage: str,
        total: int,
        start: int,
        quiet: bool,
        on_progress: Callable[[ProgressEvent], None] | None,
    ) -> None:
        self._console, self._stage, self._quiet, self._on_progress = console, stage, quiet, on_progress
        self._bar: Progress | None = None
        self._brief = console.width < FULL_WIDTH
        if console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[text]}"),
                console=console,
            )
            self._task = self._bar.add_task(escape(stage), total=total, completed=start, text="")

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int) -> None:
        """Moves the bar; cheap enough for every step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def report(self, event: ProgressEvent) -> None:
        """Shows new figures."""
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, text=escape(describe(event, self._brief)))
        elif event.evaluated and not self._quiet:
            line = f"{event.stage}: step {event.step}/{event.total} · {describe(event)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._console.file.flush()
        if self._on_progress is not None:
            self._on_progress(event)


def describe(event: ProgressEvent, brief: bool = False) -> str:
    """Loss, metric with the best in brackets, tokens a second, time left: on one line. ``brief``: in 45 characters."""
    parts = []
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.metric is not None:
        best = "" if event.best_metric is None or brief else f" (best {event.best_metric:.4f})"
        parts.append(f"{event.metric_name} {event.metric:.4f}{best}")
    minutes, seconds = divmod(round(event.seconds_left), 60)
    left = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
    if not brief:
        parts.append(f"{event.tokens_per_second:,.0f} tokens/s")
    return " · ".join([*parts, f"{left} left"])

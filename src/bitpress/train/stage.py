"""One stage of training, and exactly where it may be interrupted.

Everything that shapes the weights is a function of (settings, data, initial weights): the order of the data of (seed,
stage, epoch), dropout of (seed, stage, step, batch of the step), evaluations of the step. Checkpoints are taken after
a step and its evaluation are complete, at moments the clock chooses, so when they are taken changes nothing. A process
killed at any instant goes back to its newest checkpoint and walks the same path again, to the same bytes (same machine,
same number of threads). So do several processes that train together (train/processes.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from bitpress.errors import TrainingError
from bitpress.train.batching import EncodedDataset
from bitpress.train.checkpoint import CheckpointStore, model_tensors, tensors_digest
from bitpress.train.memory import keep_freed_memory
from bitpress.train.processes import Processes
from bitpress.train.progress import ProgressEvent
from bitpress.train.running_stage import Evaluation, LossFunction, Probe, RunningStage, StageResult, environment
from bitpress.train.scalars import NoScalars, ScalarLog
from bitpress.train.schedule import Schedule, derive_seed

# torch gives this module its one attribute through a replaced class, which mypy cannot see.
_determinism: Any = torch.utils.deterministic


def run_stage(
    *,
    name: str,
    model: nn.Module,
    train: EncodedDataset,
    loss_fn: LossFunction,
    evaluate: Evaluation,
    metric: str,
    schedule: Schedule,
    run_dir: Path,
    fingerprint: dict[str, Any],
    probe: Probe | None = None,
    console: Console | None = None,
    quiet: bool = False,
    on_progress: Callable[[ProgressEvent], None] | None = None,
    distributed: bool = False,
) -> StageResult:
    """Trains ``model`` in place and leaves it in eval mode with the weights that were best on dev, or the last ones
    where the schedule keeps those.

    Called again after an interruption it continues from its newest checkpoint; called again after the end it loads the
    result and returns at once. Buffers belong to the weights: state that training changes must be a parameter or a
    persistent buffer. The files are in ``run_dir/name`` and ``run_dir/scalars.jsonl``.

    Args:
        name: names the stage's directory; part of every seed.
        loss_fn: (model in train mode, batch) -> (scalar loss, named parts of it for the log). The loss must be a mean
            over the batch's examples: a step over several batches weights each by its number of examples, which then
            equals one large batch.
        evaluate: (model in eval mode, without gradients) -> measurements; must not change the model.
        metric: the key of ``evaluate``'s result that selects the best weights; higher is better, NaN is worst.
        fingerprint: JSON values that must be equal when the stage is resumed. The schedule, the data, the initial
            weights and the metric are added to it here.
        probe: (model in eval mode) -> JSON values, written before the first step (unless there are none) and with each
            evaluation; must not change the model.
        console: where progress and warnings go; stderr if None.
        quiet: neither a bar nor lines at evaluations; warnings still appear.
        on_progress: called at every log line and every evaluation.
        distributed: whether several processes may call this together, each with the same arguments. They make steps of
            as many batches as they are, times ``accumulate``, and buffers are those of the first.

    Raises:
        TrainingError: the run directory is of another configuration or in use, there is no data, the metric is not
            measured, or the loss is not finite.
        KeyboardInterrupt: passed on; the same call continues.
    """
    console = console or Console(stderr=True)
    if not len(train):
        raise TrainingError(f"stage {name!r} has no training example; give at least one.")
    if not name or name.startswith(".") or "/" in name:
        raise TrainingError(f"{name!r} cannot name a stage: its checkpoints are stored in a directory of that name.")

    def warn(text: str) -> None:
        console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)

    accelerator = Accelerator(mixed_precision="no")
    processes = Processes(accelerator)
    if processes.count > 1 and not distributed:
        raise TrainingError(
            f"{processes.count} processes were launched; this training runs in one. Start it without a launcher."
        )
    keep_freed_memory()
    store = CheckpointStore(run_dir / name, warn) if processes.is_first else None
    with ExitStack() as stack:
        if store is not None:
            stack.enter_context(store.locked())
        stack.enter_context(_deterministic(accelerator.device))
        scalars = ScalarLog(run_dir / "scalars.jsonl") if store is not None else NoScalars()
        try:
            stage = RunningStage(
                name=name,
                model=model,
                train=train,
                loss_fn=loss_fn,
                evaluate=evaluate,
                metric=metric,
                probe=probe,
                schedule=schedule,
                accelerator=accelerator,
                processes=processes,
                store=store,
                scalars=scalars,
            )
            stack.callback(stage.second_moments.release)
            settings = {
                **fingerprint,
                "schedule": {
                    key: value for key, value in dataclasses.asdict(schedule).items() if key != "checkpoint_seconds"
                },
                "metric": metric,
                "train_data": train.digest(),
                "initial_weights": tensors_digest(model_tensors(model)),
                **({"processes": processes.count} if processes.count > 1 else {}),
            }
            if store is not None:
                start = store.begin(settings, {"scalars": scalars.position(), **environment()})
                stage.restore(store, start, warn)
            result = stage.begin_together()
            if result is None:
                first = processes.is_first
                result = stage.run(console, quiet or not first, on_progress if first else None)
        finally:
            scalars.close()
    # Whatever the caller draws next must not depend on whether this call trained, resumed or only loaded.
    torch.manual_seed(derive_seed(schedule.seed, name, "end"))
    for parameter in model.parameters():
        parameter.grad = None
    model.eval()
    return result


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic kernels inside; where an accelerator has none, torch warns instead of refusing."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = _determinism.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # The mode would also fill each fresh tensor with NaN, a debugging aid that costs a pass over memory.
    _determinism.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _determinism.fill_uninitialized_memory = fill

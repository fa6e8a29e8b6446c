"""A running stage of training: its state, its steps, its evaluations and checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from bitpress.errors import TrainingError
from bitpress.train.batching import Batch, EncodedDataset, Plan, collate
from bitpress.train.checkpoint import CheckpointStore, load_model_tensors, model_tensors
from bitpress.train.optimizer import FusedAdam
from bitpress.train.processes import Processes
from bitpress.train.progress import ProgressDisplay, ProgressEvent
from bitpress.train.scalars import NoScalars, ScalarLog
from bitpress.train.schedule import Schedule, derive_seed, learning_rate_at
from bitpress.train.second_moments import SecondMoments

LOG_EVERY = 10  # steps between lines of scalars; reading a loss waits for an accelerator to catch up
CHECKPOINT_SHARE = 0.04  # a checkpoint is put off rather than let writing them take more than this share of the time

LossFunction = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]
Evaluation = Callable[[nn.Module], dict[str, float]]
Probe = Callable[[nn.Module], dict[str, Any]]


@dataclass(frozen=True)
class StageResult:
    """What a stage reached.

    best_metric        the chosen metric on dev of the weights that were kept, and best_step where (of the best: the
                       highest; ties: the earlier step)
    metrics            everything that was measured at best_step
    steps, tokens      optimizer steps and real (unpadded) tokens trained on
    seconds            time spent, evaluations and checkpoints included; work lost to an interruption is not counted
    tokens_per_second  tokens by the time of the training steps alone
    resumed_from       the step this call continued from; None if it began at the beginning; ``steps`` if there was
                       nothing left to do
    """

    best_metric: float
    best_step: int
    metrics: dict[str, float]
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float
    resumed_from: int | None


def environment() -> dict[str, Any]:
    """What the bytes of a run depend on beside its settings."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__}


class RunningStage:
    """The state of a running stage; every field that outlives a step is in `_state` or in the tensors beside it."""

    def __init__(
        self,
        *,
        name: str,
        model: nn.Module,
        train: EncodedDataset,
        loss_fn: LossFunction,
        evaluate: Evaluation,
        metric: str,
        probe: Probe | None,
        schedule: Schedule,
        accelerator: Accelerator,
        processes: Processes,
        store: CheckpointStore | None,  # None: another process writes
        scalars: ScalarLog | NoScalars,
    ) -> None:
        self.name, self.train, self.loss_fn, self.evaluate, self.metric = name, train, loss_fn, evaluate, metric
        self.probe = probe
        self.schedule, self.accelerator, self.store, self.scalars = schedule, accelerator, store, scalars
        self.processes = processes
        self.lengths = train.lengths
        together = dataclasses.replace(schedule, accumulate=schedule.accumulate * processes.count)
        self.plan = Plan(self.lengths, together, name)
        self.raw_model = model
        self.raw_optimizer = FusedAdam(model.named_parameters(), schedule)
        # Several processes add up gradients themselves (Processes.add_gradients): no wrapper around the model.
        self.model = accelerator.prepare_model(model, evaluation_mode=processes.count > 1)
        self.optimizer = accelerator.prepare_optimizer(self.raw_optimizer)
        self.second_moments = SecondMoments(self.raw_model, self.raw_optimizer)

        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.train_seconds = 0.0
        self.resumed_from: int | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.best_step: int | None = None
        self.best_metric = -math.inf
        self.best_metrics: dict[str, float] = {}
        self.last_metric: float | None = None
        self.window: dict[str, Tensor] = {}
        self.window_steps = 0

    # -- state ---------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "best_step": self.best_step,
            "best_metric": self.best_metric,
            "best_metrics": self.best_metrics,
            "last_metric": self.last_metric,
            # fp32 -> JSON -> fp32 is exact, so the logged means of a resumed run are those of an undisturbed one.
            "window": self._window(),
            "window_steps": self.window_steps,
            "scalars": self.scalars.position(),
        }

    def _set_state(self, state: dict[str, Any]) -> None:
        self.tokens, self.seconds, self.train_seconds = state["tokens"], state["seconds"], state["train_seconds"]
        self.best_step, self.best_metric = state["best_step"], state["best_metric"]
        self.best_metrics, self.last_metric = state["best_metrics"], state["last_metric"]
        device = self.accelerator.device
        self.window = {key: torch.tensor(value, device=device) for key, value in state["window"].items()}
        self.window_steps = state["window_steps"]

    def _window(self) -> dict[str, float]:
        """Sums since the last line of scalars, of all processes."""
        return self.processes.add_numbers({key: value.item() for key, value in self.window.items()})

    def begin_together(self) -> StageResult | None:
        """Every process goes on from where the first one is; the result, if the stage had ended before."""
        if self.processes.count > 1:
            window = self.window
            self.step, self.resumed_from, state = self.processes.shared((self.step, self.resumed_from, self._state()))
            self._set_state(state)
            self.window = window  # a process has its own part of it
            self.processes.share_tensors(model_tensors(self.raw_model))
            self.processes.share_tensors(self.raw_optimizer.state_tensors())
        return self._result() if self.step == self.plan.total else None

    def restore(self, store: CheckpointStore, start: dict[str, Any], warn: Callable[[str], None]) -> None:
        """Continues from what the directory holds: at its end, if the stage had ended before."""
        finished = store.finished()
        if finished is not None:
            state, weights = finished
            load_model_tensors(self.raw_model, weights)
            self._set_state(state)
            self.step = self.resumed_from = self.plan.total
            store.clear()
            return
        checkpoint = store.newest()
        if checkpoint is None:
            self.scalars.truncate(start["scalars"])
            return
        for key, value in environment().items():
            if start[key] != value:
                warn(
                    f"stage {self.name!r} was begun with {key} {start[key]} and continues with {value}; "
                    "the weights will not be byte-identical to those of an undisturbed run"
                )
        load_model_tensors(self.raw_model, checkpoint.model)
        self.raw_optimizer.load_state_tensors(checkpoint.optimizer)
        self.best_weights = checkpoint.best
        self._set_state(checkpoint.state)
        self.scalars.truncate(checkpoint.state["scalars"])
        self.step = self.resumed_from = checkpoint.step

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self, console: Console, quiet: bool, on_progress: Callable[[ProgressEvent], None] | None) -> StageResult:
        """From the current step to the last one."""
        session_start, session_step, before = time.perf_counter(), self.step, self.seconds
        checkpointed, checkpoint_cost = session_start, 0.0
        display = ProgressDisplay(console, self.name, self.plan.total, self.step, quiet, on_progress)

        def report(loss: float | None, evaluated: bool) -> None:
            self.seconds = before + time.perf_counter() - session_start
            pace = (time.perf_counter() - session_start) / max(1, self.step - session_step)
            display.report(
                ProgressEvent(
                    stage=self.name,
                    step=self.step,
                    total=self.plan.total,
                    loss=loss,
                    metric_name=self.metric,
                    metric=self.last_metric,
                    best_metric=None if self.best_step is None else self.best_metric,
                    tokens_per_second=self._tokens_per_second(),
                    seconds_left=pace * (self.plan.total - self.step),
                    evaluated=evaluated,
                )
            )

        loss = None
        if self.step == 0 and self.probe is not None and self.processes.is_first:
            self.model.eval()
            if probes := self.probe(self.raw_model):
                self.scalars.write({"stage": self.name, "step": 0, "probes": probes, "time": time.time()})
        with display:
            while self.step < self.plan.total:
                step_start = time.perf_counter()
                self._train_step()
                self.train_seconds += time.perf_counter() - step_start
                display.step(self.step)
                evaluated = self.plan.is_evaluated(self.step)
                if evaluated or self.step % LOG_EVERY == 0:
                    loss = self._log()
                    if evaluated:
                        self._evaluate()
                    report(loss, evaluated)
                now = time.perf_counter()
                interval = max(self.schedule.checkpoint_seconds, checkpoint_cost / CHECKPOINT_SHARE)
                if self.step < self.plan.total and self.processes.shared(now - checkpointed >= interval):
                    self.seconds = before + now - session_start
                    self._save()
                    checkpointed = time.perf_counter()
                    checkpoint_cost = checkpointed - now
        self.seconds = before + time.perf_counter() - session_start
        state = self._state()
        if self.store is not None:
            assert self.best_weights is not None, "the last step is always evaluated"
            load_model_tensors(self.raw_model, self.best_weights)
            self.store.finish(self.best_weights, state)
        self.processes.share_tensors(model_tensors(self.raw_model))
        return self._result()

    def _train_step(self) -> None:
        """One optimizer step over the plan's batches, each weighted by its share of the examples."""
        self.model.train()
        self.raw_optimizer.set_learning_rate(learning_rate_at(self.schedule, self.step, self.plan.total))
        micro_batches = self.plan.micro_batches(self.step)
        examples = sum(len(indices) for indices in micro_batches)
        self.tokens += sum(int(self.lengths[indices].sum()) for indices in micro_batches)
        for number, indices in enumerate(micro_batches):
            if number % self.processes.count != self.processes.rank:
                continue
            batch = collate(self.train, indices, self.accelerator.device)
            torch.manual_seed(derive_seed(self.schedule.seed, self.name, self.step, number))
            loss, parts = self.loss_fn(self.model, batch)
            share = len(indices) / examples
            self.accelerator.backward(loss if share == 1.0 else loss * share)
            for key, value in {"loss": loss, **{f"component:{k}": v for k, v in parts.items()}}.items():
                self._add_to_window(key, value, share)
        self.processes.add_gradients(self.raw_model.parameters())
        self.optimizer.step()
        self.processes.share_tensors(dict(self.raw_model.named_buffers()))
        # Freeing gradients is faster than zeroing them: backward of an embedding makes a fresh dense gradient anyway,
        # which is then adopted instead of added.
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.window_steps += 1

    def _add_to_window(self, key: str, value: Tensor, share: float) -> None:
        weighted = value.detach().float() * share
        self.window[key] = self.window[key] + weighted if key in self.window else weighted

    def _log(self) -> float:
        """Writes the means since the last line. Raises TrainingError if the loss is not finite."""
        means = {key: value / self.window_steps for key, value in self._window().items()}
        self.window, self.window_steps = {}, 0
        loss = means.pop("loss")
        self.scalars.write(
            {
                "stage": self.name,
                "step": self.step,
                "epoch": self.plan.epoch(self.step - 1),
                "loss": loss,
                "components": {key.removeprefix("component:"): value for key, value in means.items()},
                "lr": self.raw_optimizer.param_groups[0]["lr"],
                "tokens_per_second": self._tokens_per_second(),
                "time": time.time(),
            }
        )
        if not math.isfinite(loss):
            raise TrainingError(
                f"stage {self.name!r}: the loss is {loss} within the steps up to {self.step} of {self.plan.total}; "
                f"it must be finite. Lower learning_rate (now {self.schedule.learning_rate}) or lengthen the warm-up, "
                f"and delete {'the run' if self.store is None else self.store.directory} before starting again."
            )
        return loss

    def _evaluate(self) -> None:
        self.model.eval()
        self.second_moments.settle()
        metrics: dict[str, float] = {}
        if self.processes.is_first:
            with torch.no_grad():
                metrics = {key: float(value) for key, value in self.evaluate(self.raw_model).items()}
        metrics = self.processes.shared(metrics)
        if self.metric not in metrics:
            raise TrainingError(
                f"stage {self.name!r} selects by {self.metric!r} but the evaluation measured "
                f"{', '.join(sorted(metrics)) or 'nothing'}. Select by one of these."
            )
        value = metrics[self.metric]
        self.last_metric = value
        rank, best_rank = (-math.inf if math.isnan(x) else x for x in (value, self.best_metric))
        if self.best_step is None or rank > best_rank or self.schedule.keep == "last":
            self.best_step, self.best_metric, self.best_metrics = self.step, value, metrics
            if self.store is not None:
                self.best_weights = {key: t.detach().clone() for key, t in model_tensors(self.raw_model).items()}
        if self.store is None:
            return
        self.scalars.write(
            {
                "stage": self.name,
                "step": self.step,
                "metric": value,
                "metrics": metrics,
                "best_metric": self.best_metric,
                "best_step": self.best_step,
                **({} if self.probe is None else {"probes": self.probe(self.raw_model)}),
                "time": time.time(),
            }
        )

    def _save(self) -> None:
        state = self._state()  # of all processes
        if self.store is not None:
            self.store.save(
                self.step,
                model_tensors(self.raw_model),
                self.raw_optimizer.state_tensors(),
                self.best_weights,
                self.best_step,
                state,
            )

    def _tokens_per_second(self) -> float:
        return self.tokens / self.train_seconds if self.train_seconds else 0.0

    def _result(self) -> StageResult:
        assert self.best_step is not None, "a stage ends with an evaluation"
        return StageResult(
            best_metric=self.best_metric,
            best_step=self.best_step,
            metrics=self.best_metrics,
            steps=self.step,
            tokens=self.tokens,
            seconds=self.seconds,
            tokens_per_second=self._tokens_per_second(),
            resumed_from=self.resumed_from,
        )

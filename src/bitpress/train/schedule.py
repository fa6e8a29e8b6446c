"""How long, how fast and in what portions a stage trains; and the seeds that make it a function of its settings."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Literal

from bitpress.errors import TrainingError

OPTIMIZERS = ("adamw", "bertadam")
DECAYS = ("linear", "constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings of one stage, validated when made.

    learning_rate      peak rate, reached after the warm-up
    quantizer_learning_rate  that of learned scales and thresholds; None means the same
    epochs, max_steps  passes over the data (may be a fraction); max_steps cuts them short, never lengthens them
    optimizer          "adamw" (bias correction, clip on the global norm) or "bertadam" (the BERT papers' optimizer: no
                       bias correction, clip on the norm of each tensor)
    eps                None means the optimizer's own: 1e-8 for adamw, 1e-6 for bertadam
    weight_decay       decoupled; never applied to biases and normalization parameters
    warmup             fraction of all steps, in [0, 1)
    batch_tokens       tokens a batch, padding included; or batch_size, examples a batch: exactly one of the two
    accumulate         batches an optimizer step
    clip_norm          largest gradient norm; None does not clip
    keep               "best": the weights that were best on dev; "last": those of the last step, where the metric on
                       dev does not show what the stage teaches
    evaluate_every     steps between evaluations; None means four times an epoch. The last step is always evaluated.
    checkpoint_seconds seconds between checkpoints; has no effect on the result

    Raises:
        TrainingError: a value is out of range; the text names the key, the value and what is allowed.
    """

    learning_rate: float
    quantizer_learning_rate: float | None = None
    epochs: float = 3
    max_steps: int | None = None
    optimizer: Literal["adamw", "bertadam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: Literal["linear", "constant", "cosine"] = "linear"
    batch_tokens: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = 1.0
    keep: Literal["best", "last"] = "best"
    evaluate_every: int | None = None
    checkpoint_seconds: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        def require(key: str, valid: bool, allowed: str) -> None:
            if not valid:
                raise TrainingError(f"schedule: {key} is {getattr(self, key)!r}; allowed: {allowed}. Change {key}.")

        def at_least_one(value: int | None) -> bool:
            return value is None or value >= 1

        require("learning_rate", 0 < self.learning_rate < math.inf, "a positive number")
        quantizers = self.quantizer_learning_rate
        require(
            "quantizer_learning_rate", quantizers is None or 0 < quantizers < math.inf, "a positive number, or null"
        )
        require("epochs", 0 < self.epochs < math.inf, "a positive number")
        require("max_steps", at_least_one(self.max_steps), "an integer of at least 1, or null")
        require("optimizer", self.optimizer in OPTIMIZERS, ", ".join(OPTIMIZERS))
        require("betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        require("eps", self.eps is None or 0 < self.eps < math.inf, "a positive number, or null")
        require("weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0")
        require("warmup", 0 <= self.warmup < 1, "a fraction of the steps, in [0, 1)")
        require("decay", self.decay in DECAYS, ", ".join(DECAYS))
        require("batch_tokens", at_least_one(self.batch_tokens), "an integer of at least 1, or null")
        require("batch_size", at_least_one(self.batch_size), "an integer of at least 1, or null")
        require("accumulate", self.accumulate >= 1, "an integer of at least 1")
        require("keep", self.keep in ("best", "last"), "best, last")
        require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "a positive number, or null")
        require("evaluate_every", at_least_one(self.evaluate_every), "an integer of at least 1, or null")
        require("checkpoint_seconds", self.checkpoint_seconds >= 0, "a number of at least 0")
        require("seed", self.seed >= 0, "an integer of at least 0")
        if (self.batch_tokens is None) == (self.batch_size is None):
            raise TrainingError(
                f"schedule: batch_tokens is {self.batch_tokens!r} and batch_size is {self.batch_size!r}; "
                "exactly one of them must be set. Give one and leave the other null."
            )

    @property
    def quantizer_rate(self) -> float:
        """The rate of learned scales and thresholds as a multiple of that of the weights."""
        rate = self.quantizer_learning_rate
        return 1.0 if rate is None else rate / self.learning_rate

    @property
    def epsilon(self) -> float:
        """The optimizer's ε, resolved."""
        if self.eps is not None:
            return self.eps
        return 1e-6 if self.optimizer == "bertadam" else 1e-8


def learning_rate_at(schedule: Schedule, step: int, total: int) -> float:
    """The rate of optimizer step ``step`` (counted from 0) of ``total``.

    Linear warm-up over the first W = ⌊warmup · total⌋ steps, full rate at step W, then the decay towards 0. Unlike the
    published schedules neither the first nor the last step is spent at a rate of exactly 0.
    """
    warmup = int(schedule.warmup * total)
    if step < warmup:
        return schedule.learning_rate * (step + 1) / (warmup + 1)
    remaining = (total - step) / (total - warmup)
    if schedule.decay == "linear":
        return schedule.learning_rate * remaining
    if schedule.decay == "cosine":
        return schedule.learning_rate * 0.5 * (1.0 - math.cos(math.pi * remaining))
    return schedule.learning_rate


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a function of the parts and of nothing else (Python's own ``hash`` is salted)."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1

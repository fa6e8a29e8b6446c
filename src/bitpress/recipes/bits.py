"""Keys of a recipe that set others in all its stages, ``bits`` and ``ternarize``, and how ``bits`` are divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bitpress.errors import RecipeError
from bitpress.quantize.uniform_weights import BITS
from bitpress.sensitivity.budget import Budget

SCHEMES_WITH_BITS = ("uniform", "codebook")  # of weights whose policy has a choice of ``bits``


@dataclass(frozen=True)
class BitAllocation:
    """Where a recipe's ``bits`` are several widths: how they are divided among the blocks of the layers.

    ``rule``: "rank" gives the higher of two widths to the blocks of highest Ω (Q-BERT); "error" chooses among any
    number the bits of least predicted loss, trace of the Hessian times quantization error (HAWQ-V2).
    ``by``: what a block is: a "layer", a "module" (attention or feed-forward network) or a "matrix".
    ``budget``: what the weights of all blocks may take, with their scales and offsets, as the artifact stores them:
    "30.5MB", "12MiB", or a share of the same in fp32, "1/13" (:meth:`bitpress.sensitivity.budget.Budget.parse`); or
    what the engine may take on this machine for one text of ``tokens`` tokens: "40ms".
    ``high``: of rule "rank", how many blocks get the higher width, instead of a budget; with neither, half of them.
    ``sensitivity``: the directory of a finished `bitpress sensitivity`; null: it is measured before the training.
    """

    rule: Literal["rank", "error"] = "rank"
    by: Literal["layer", "module", "matrix"] = "layer"
    budget: str | int | float | None = None
    tokens: int = 128
    high: int | None = None
    sensitivity: str | None = None

    def __post_init__(self) -> None:
        if self.rule == "error" and self.budget is None:
            raise RecipeError("allocation.rule is 'error', which needs a limit; set budget, such as budget=1/10")
        if self.rule == "error" and self.high is not None:
            raise RecipeError(f"allocation.high is {self.high}, which is of rule 'rank'; set budget instead")
        if self.budget is not None and self.high is not None:
            raise RecipeError("allocation.budget and allocation.high are both given; one says the other")
        if self.high is not None and (type(self.high) is not int or self.high < 0):
            raise RecipeError(f"allocation.high is {self.high!r}; allowed: a number of blocks, or null")
        if type(self.tokens) is not int or self.tokens < 1:
            raise RecipeError(f"allocation.tokens is {self.tokens!r}; allowed: an integer of at least 1")
        if self.budget is not None:
            Budget.parse(self.budget, 1 << 40)


def parse_widths(bits: object) -> tuple[int, ...]:
    """2 or "2/4" → the numbers of bits, ascending.

    Raises:
        RecipeError: no such numbers, or one twice.
    """
    parts = str(bits).split("/")
    if isinstance(bits, bool) or not all(part in map(str, BITS) for part in parts) or len(set(parts)) != len(parts):
        raise RecipeError(
            f"bits is {bits!r}; allowed: one of {', '.join(map(str, BITS))}, or several of them, such as 2/4"
        )
    return tuple(sorted(int(part) for part in parts))


def set_bits(values: dict[str, Any], overrides: Mapping[str, Any], where: str) -> None:
    """Carry out ``bits`` of a recipe, in place. Of several widths, weights that are in no block get the highest.

    Raises:
        RecipeError: no weights have bits, or other keys say otherwise.
    """
    other = next((key for key in overrides if key.endswith("weights.bits")), None)
    if other and "bits" in overrides:
        raise RecipeError(f"--set bits and --set {other} are both given, and say the same; give one of them")
    if other:
        values["bits"] = None  # what was asked for is more than what the recipe says of itself
    widths = () if values["bits"] is None else parse_widths(values["bits"])
    if len(widths) < 2:
        for key, unchanged in vars(BitAllocation()).items():
            if values["allocation"][key] != unchanged:
                raise RecipeError(
                    f"allocation.{key} is {values['allocation'][key]!r}, but bits does not name several widths to "
                    "divide; set bits, such as bits=2/4"
                )
    if not widths:
        return
    sections = [stage["quantize"]["weights"] for stage in values["stages"]]
    with_bits = [weights for weights in sections if weights["scheme"] in SCHEMES_WITH_BITS]
    if not with_bits:
        schemes = ", ".join(sorted({weights["scheme"] for weights in sections}))
        raise RecipeError(
            f"{where}: bits is {values['bits']!r}, which {' and '.join(SCHEMES_WITH_BITS)} weights have; here they are "
            f"{schemes}"
        )
    for weights in with_bits:
        weights["bits"] = widths[-1]
    values["bits"] = "/".join(map(str, widths)) if len(widths) > 1 else widths[0]
    if len(widths) > 2 and values["allocation"]["rule"] == "rank":
        raise RecipeError(f"bits is {values['bits']}; rank divides two widths. Set allocation.rule=error for more")


def set_method(values: dict[str, Any], overrides: Mapping[str, Any], where: str) -> None:
    """Carry out ``ternarize`` of a recipe, in place.

    Raises:
        RecipeError: no weights are ternary, or another key says otherwise.
    """
    if values["ternarize"] is None:
        return
    if other := next((key for key in overrides if key.endswith(".method")), None):
        raise RecipeError(f"--set ternarize and --set {other} are both given, and say the same; give one of them")
    sections = [stage["quantize"][key] for stage in values["stages"] for key in ("weights", "word_embedding")]
    ternary = [section for section in sections if section["scheme"] == "ternary"]
    if not ternary:
        raise RecipeError(f"{where}: ternarize is {values['ternarize']!r}, but no weights are ternary")
    for section in ternary:
        section["method"] = values["ternarize"]

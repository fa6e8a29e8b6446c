"""What a recipe file may say, and how ``--set`` changes it. The sections are the dataclasses of those who act on them.

A recipe is YAML: a header and a list of stages; ``ternarybert.yaml`` beside this file shows every key, ``int8.yaml`` a
stage that trains nothing. Unknown keys and values out of range are errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bitpress.distill import LossWeights
from bitpress.encoder import SequenceClassifier
from bitpress.encoder.activations import ACTIVATIONS
from bitpress.errors import RecipeError
from bitpress.quantize import Policy
from bitpress.recipes.bits import SCHEMES_WITH_BITS, BitAllocation, parse_widths, set_bits, set_method
from bitpress.slim import EmbeddingsFrom
from bitpress.train import Schedule

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Distillation:
    """Factors of the losses of ``bitpress.distill``, how they are measured and averaged, and who teaches.

    ``similarity``: direction-matching distillation of queries, keys and values. ``labels``: cross-entropy with the
    data's own labels. ``teacher``: "teacher", or "previous", the student as the stage before left it. ``layer_map``:
    which of the teacher's layers the student's are compared with (:func:`teacher_states`). ``projection``: of hidden
    states to the teacher's width; "auto" is "shared" where the widths differ. ``data``: "all" of the training data,
    the "original" rows without those that ``bitpress augment`` made of them, or "auto": original ones for regression
    (TinyBERT §4.2: its predictions are better taught so), otherwise all.
    """

    teacher: Literal["teacher", "previous"] = "teacher"
    attention_scores: float = 1.0
    similarity: float = 0.0
    hidden_states: float = 1.0
    hidden_distance: Literal["mse", "direction", "cosine"] = "mse"
    logits: float = 1.0
    labels: float = 0.0
    temperature: float = 1.0
    reduction: Literal["batch", "batch_and_class"] = "batch"
    padding: Literal["exclude", "include"] = "exclude"
    layer_map: Literal["uniform", "top", "bottom"] | tuple[int, ...] = "uniform"
    projection: Literal["auto", "none", "shared", "per_state"] = "auto"
    data: Literal["all", "original", "auto"] = "all"

    def __post_init__(self) -> None:
        self.weights()  # checks the factors
        if not self.temperature > 0:
            raise RecipeError(f"distill.temperature is {self.temperature!r}; allowed: a number above 0")

    def weights(self) -> LossWeights:
        """The factors as the losses take them."""
        return LossWeights(
            attention=self.attention_scores,
            similarity=self.similarity,
            hidden=self.hidden_states,
            prediction=self.logits,
            labels=self.labels,
        )


@dataclass(frozen=True)
class StudentChanges:
    """Where the student comes from, and in what it differs from its teacher; null: in nothing.

    ``init``: a Hugging Face directory whose weights it starts from (a general distillation's), or a shape such as
    "4x312", of which it is made afresh. ``layers``: without ``init``, which of the teacher's layers it is made of: how
    many, "half" of them, or a list (:func:`from_layers`). ``embeddings``: of a student of a shape, whether they start
    random or as the teacher's (:func:`take_embeddings`).
    ``head``: what its classifier reads of the pooler's linear, one of :data:`bitpress.families.HEADS`.
    ``hidden_act``: its feed-forward activation function. ``dropout``: one probability everywhere while it trains.
    ``width``: the share of attention heads and feed-forward neurons that it keeps, the most important ones.
    """

    init: str | None = None
    layers: int | Literal["half"] | tuple[int, ...] | None = None
    embeddings: EmbeddingsFrom = "random"
    head: Literal["linear", "relu", "dense_relu", "dense_gelu"] | None = None
    hidden_act: str | None = None
    dropout: float | None = None
    width: float = 1.0

    def __post_init__(self) -> None:
        if self.hidden_act is not None and self.hidden_act not in ACTIVATIONS:
            raise RecipeError(f"student.hidden_act is {self.hidden_act!r}; allowed: {', '.join(ACTIVATIONS)}, or null")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise RecipeError(f"student.dropout is {self.dropout!r}; allowed: a probability below 1, or null")
        if not 0 < self.width <= 1:
            raise RecipeError(f"student.width is {self.width!r}; allowed: above 0 and at most 1")
        if self.init is not None and self.layers is not None:
            raise RecipeError("student.init and student.layers are both given; a student is made of one or the other")

    def apply(self, model: SequenceClassifier) -> None:
        """Change the function and the dropout of ``model``, which the student is to be."""
        if self.head is not None:
            model.set_head(self.head)
        if self.hidden_act is not None:
            model.set_hidden_act(self.hidden_act)
        if self.dropout is not None:
            model.set_dropout(self.dropout)


class Stage(BaseModel):
    """One step of a recipe: quantizers, and how to train with them. Without ``distill`` and ``schedule`` it trains
    nothing: the weights are quantized as they are. ``split``: first, every ternary weight of the stage before becomes
    the sum of two (ternary weight splitting)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    split: bool = False
    quantize: Policy
    distill: Distillation | None = None
    schedule: Schedule | None = None

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if (self.distill is None) != (self.schedule is None):
            raise ValueError("distill and schedule belong together; give both to train, none to quantize only")
        activations = self.quantize.activations
        if self.schedule is None and activations.scheme == "uniform" and activations.range != "token":
            raise ValueError(
                f"activations.range is {activations.range!r}, but the stage trains nothing that could set such a "
                "range; use range=token, or give the stage distill and schedule"
            )
        if self.schedule is None and activations.scheme == "elastic":
            raise ValueError("activations.scheme is 'elastic', which is learned; give the stage distill and schedule")
        return self


class Recipe(BaseModel):
    """A parsed recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    summary: str
    paper: str
    compat: Literal["corrected", "reference"] = "corrected"
    freeze: bool = True
    packing: Literal["2bit", "trits"] = "2bit"
    side_data: Literal["fp32", "fp16"] = "fp32"
    max_length: int | None = None
    bits: int | str | None = None  # of uniform or codebook weights, in every stage; "2/4": divided by `allocation`
    ternarize: str | None = None  # `method` of ternary weights, in every stage that has them
    allocation: BitAllocation = BitAllocation()
    student: StudentChanges = StudentChanges()
    reference: dict[str, Any] = {}  # overrides of `compat: reference`: the release where it differs
    stages: tuple[Stage, ...]

    @property
    def trains(self) -> bool:
        """Whether the recipe needs training data."""
        return self.student.width < 1 or any(stage.schedule is not None for stage in self.stages)

    @property
    def uses_labels(self) -> bool:
        """Whether training data needs labels, or the teacher alone says what is learned."""
        measures = self.student.width < 1 or (bool(self.widths) and self.allocation.sensitivity is None)
        return measures or any(stage.distill is not None and stage.distill.labels > 0 for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        """The numbers of bits that are divided among blocks, ascending; none where every block has the same."""
        return parse_widths(self.bits) if isinstance(self.bits, str) else ()

    @property
    def allocated_stage(self) -> int | None:
        """The first stage whose weights have bits to choose, before which their bits are divided."""
        return next((i for i, stage in enumerate(self.stages) if _has_bits(stage.quantize)), None)

    def with_bits(self, bits: Mapping[str, int]) -> Recipe:
        """With bits of their own for blocks, in every stage whose weights have bits to choose."""
        stages = []
        for stage in self.stages:
            policy = stage.quantize.with_bits(bits) if _has_bits(stage.quantize) else stage.quantize
            stages.append(stage.model_copy(update={"quantize": policy}))
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def policy(self) -> Policy:
        """The quantizers of the finished student: those of the last stage."""
        return self.stages[-1].quantize

    def as_dict(self) -> dict[str, Any]:
        """Every key with its value, as JSON types."""
        return self.model_dump(mode="json")


def _has_bits(policy: Policy) -> bool:
    return policy.weights.scheme in SCHEMES_WITH_BITS


def list_recipes() -> list[Recipe]:
    """The recipes that come with bitpress, by name."""
    return [load_recipe(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]


def recipe_text(name: str | Path) -> str:
    """The YAML of a recipe by name, of several joined by "+" (every key, without comments), or of a file.

    Raises:
        RecipeError: there is no such recipe, and the error lists those there are; or these cannot be joined.
    """
    parts = _parts(name)
    if len(parts) > 1:
        return yaml.safe_dump(_joined(parts).model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    path = FOLDER / f"{name}.yaml" if str(name) in names else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        close = difflib.get_close_matches(str(name), names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RecipeError(
            f"recipe {str(name)!r} is neither a readable YAML file nor one of {', '.join(names)}{hint}"
        ) from error


def load_recipe(name: str | Path, overrides: Mapping[str, Any] | None = None, seed: int | None = None) -> Recipe:
    """A recipe by name or file, or several joined by "+", with ``overrides`` applied.

    "tinybert+ternarybert" has the stages of both, one after the other; how the artifact is stored is as the last says,
    and the student differs from its teacher in everything that either says.

    Args:
        overrides: key → value. A key is the end of a dotted path ("epochs", "activations.range"); stages are not part
            of it, so "epochs" sets the epochs of every stage; "ternary.epochs" those of the stage "ternary" only.
            A key of the recipe itself ("bits") is that one, whatever paths end in it.
        seed: of every stage that trains.

    Raises:
        RecipeError: not YAML, an unknown key, an ambiguous or unknown override, a value that is not allowed.
    """
    where = f"recipe {str(name)!r}"
    values = _joined(_parts(name)).model_dump()
    overrides = dict(overrides or {})
    if overrides.pop("compat", values["compat"]) == "reference":
        if not values["reference"]:
            raise RecipeError(f"{where} has no compat 'reference': it lists no differences of its release")
        values["compat"] = "reference"
        for key, value in values["reference"].items():
            _override(values, key, value)
    for key, value in overrides.items():
        _override(values, key, value)
    set_bits(values, overrides, where)
    set_method(values, overrides, where)
    if values["side_data"] == "fp16":  # scales of one-bit weights are side data too
        for section in ("weights", "word_embedding"):
            _override(values, f"{section}.scale_bits", 16)
    for stage in values["stages"]:
        if seed is not None and isinstance(stage["schedule"], dict):
            stage["schedule"]["seed"] = seed
    return _validated(values, where)


def _parts(name: str | Path) -> list[str | Path]:
    """The recipes that a name joins."""
    return [name] if Path(name).is_file() else [*str(name).split("+")]


def _parsed(name: str | Path) -> Recipe:
    where = f"recipe {str(name)!r}"
    try:
        document = yaml.safe_load(recipe_text(name))
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{where} holds {type(document).__name__}; a mapping of keys to values is expected")
    return _validated(document, where)


def _joined(names: Sequence[str | Path]) -> Recipe:
    """Recipes one after the other, as one."""
    if len(names) == 1:
        return _parsed(names[0])
    recipes = [_parsed(name).model_dump() for name in names]
    joined = dict(recipes[-1])
    for key, separator in (("name", "+"), ("summary", "; then "), ("paper", "; ")):
        joined[key] = separator.join(recipe[key] for recipe in recipes)
    unchanged = vars(StudentChanges())
    joined["student"], joined["reference"] = dict(unchanged), {}
    for recipe in recipes:
        joined["student"] |= {key: value for key, value in recipe["student"].items() if value != unchanged[key]}
        joined["reference"] |= recipe["reference"]
    joined["stages"] = tuple(stage for recipe in recipes for stage in recipe["stages"])
    return _validated(joined, f"recipe {joined['name']!r}")


def _validated(document: Mapping[str, Any], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{where}: {path}: {first['msg']} (found {first.get('input')!r})") from error
    if not recipe.stages:
        raise RecipeError(f"{where} has no stages; give at least one")
    if recipe.stages[0].distill is not None and recipe.stages[0].distill.teacher == "previous":
        raise RecipeError(f"{where}: distill.teacher of the first stage is 'previous'; only later ones have a previous")
    previous = None
    for stage in recipe.stages:
        if stage.split and (previous is None or previous.quantize.weights.scheme != "ternary"):
            raise RecipeError(f"{where}: stage {stage.name!r} splits weights; the stage before it must be ternary")
        previous = stage
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) != len(names):
        raise RecipeError(f"{where} has two stages of one name among {names}; give each its own")
    return recipe


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    """Set every leaf of ``values`` whose path ends in ``key``, or the one whose path it is, outside the stages.

    Raises:
        RecipeError: no leaf does, or leaves of different meaning do.
    """
    leaves = list(_leaves(values))
    wanted = key.split(".")
    hits = [leaf for leaf in leaves if leaf.is_meant_by(wanted)]
    if own := [leaf for leaf in hits if leaf.stage is None and list(leaf.path) == wanted]:
        hits = own
    paths = sorted({".".join(leaf.path) for leaf in hits})
    known = sorted({".".join(leaf.path) for leaf in leaves})
    if not hits:
        close = difflib.get_close_matches(key, [*known, *{path.split(".")[-1] for path in known}], 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else f"; known keys: {', '.join(known)}"
        raise RecipeError(f"--set {key}: the recipe has no such key{hint}")
    if len(paths) > 1:
        raise RecipeError(f"--set {key}: could be {' or '.join(paths)}; write one of these")
    for leaf in hits:
        leaf.owner[leaf.path[-1]] = value
    if key.rpartition(".")[2] in ("batch_tokens", "batch_size") and value is not None:
        # The two exclude each other, so setting one unsets the other.
        for leaf in hits:
            leaf.owner["batch_size" if leaf.path[-1] == "batch_tokens" else "batch_tokens"] = None


@dataclass(frozen=True)
class _Leaf:
    path: tuple[str, ...]  # without the stage
    stage: str | None
    owner: dict[str, Any]

    def is_meant_by(self, wanted: list[str]) -> bool:
        """Whether the path ends in ``wanted``, or, where that begins with the stage's name, in the rest of it."""
        if list(self.path[-len(wanted) :]) == wanted:
            return True
        rest = wanted[1:]
        return bool(rest) and wanted[0] == self.stage and list(self.path[-len(rest) :]) == rest


def _leaves(values: dict[str, Any], path: tuple[str, ...] = (), stage: str | None = None) -> Iterator[_Leaf]:
    for key, value in values.items():
        if path == () and key == "reference":
            continue  # overrides, not settings of their own
        if path == () and key == "stages":
            for part in value:
                # Only the sections that the stage has: its name is no key, and a section is not set as a whole.
                yield from _leaves({k: v for k, v in part.items() if isinstance(v, dict)}, (), part["name"])
        elif isinstance(value, dict) and key != "blocks":  # which maps names of its own
            yield from _leaves(value, (*path, key), stage)
        else:
            yield _Leaf((*path, key), stage, values)

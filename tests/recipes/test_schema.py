"""Recipes as data: every key of the shipped files, overrides, refusals. Oracle: the texts below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import GoboQuantizer, UniformWeightQuantizer
from bitpress.recipes.schema import list_recipes, load_recipe, recipe_text


def test_shipped_recipes_load_and_name_their_file_and_paper() -> None:
    recipes = list_recipes()
    assert "ternarybert" in [recipe.name for recipe in recipes]
    for recipe in recipes:
        text = recipe_text(recipe.name)
        assert f"name: {recipe.name}\n" in text
        assert f"--recipe {recipe.name}" in text, "the header lists the command that runs it"
        assert recipe.paper


def test_ternarybert_is_the_published_policy() -> None:
    policy = load_recipe("ternarybert").policy
    assert (policy.weights.scheme, policy.weights.method, policy.weights.group) == ("ternary", "twn", "matrix")
    assert (policy.word_embedding.scheme, policy.word_embedding.group) == ("ternary", "row")
    assert (policy.activations.scheme, policy.activations.bits, policy.activations.range) == ("uniform", 8, "token")


def test_recipes_without_training() -> None:
    for name, bits in (("int8", 8), ("int4", 4), ("int3", 3)):
        recipe = load_recipe(name, seed=7)
        assert not recipe.trains
        assert recipe.policy.weights.scheme == recipe.policy.word_embedding.scheme == "uniform"
        assert recipe.policy.weights.bits == bits
        assert (recipe.policy.activations.scheme, recipe.policy.activations.range) == ("uniform", "token")
    int8 = load_recipe("int8").policy
    assert (int8.weights.pair_bound, int8.word_embedding.pair_bound) == (True, False)
    trained = load_recipe("ternarybert", seed=7)
    assert trained.trains
    assert trained.stages[0].schedule is not None
    assert trained.stages[0].schedule.seed == 7


def test_gobo_is_the_published_policy() -> None:
    """3 bits, word embedding 4, outliers by a log-density of -4, Σ|w − c|; bits and blocks as in other recipes."""
    recipe = load_recipe("gobo")
    policy = recipe.policy
    assert not recipe.trains
    for part, bits in ((policy.weights, 3), (policy.word_embedding, 4)):
        assert part.quantizer(8) == GoboQuantizer(bits, "log_density", -4.0, "l1")
        assert (part.scheme, part.group, part.stored_bits) == ("codebook", "matrix", bits)
    assert (policy.activations.scheme, policy.activations.bits, policy.activations.range) == ("uniform", 8, "token")
    changed = load_recipe("gobo", {"bits": 4, "blocks": {"layers.0.attention.value": 2}}).policy
    assert changed.weights_of("layers.0.attention.key").bits == 4
    assert changed.weights_of("layers.0.attention.value").bits == 2
    assert changed.word_embedding.bits == 4
    assert load_recipe("gobo", {"bits": "3/4"}).widths == (3, 4)
    with pytest.raises(RecipeError, match=r"weights\.bits is 8; allowed: 4, 3, 2"):
        load_recipe("gobo", {"bits": 8})


def test_qbert_and_its_baseline() -> None:
    """Q-BERT §4: 128 groups, embeddings and activations of 8 bits, no teacher. DirectQ differs in groups only."""
    qbert, directq = load_recipe("q-bert").as_dict(), load_recipe("directq").as_dict()
    policy = load_recipe("q-bert").policy
    weights = policy.weights_of("layers.0.ffn.output")
    assert (weights.bits, weights.symmetric, weights.group, weights.groups) == (4, False, "row_block", 128)
    assert (weights.of_rows(768).group_size, weights.of_rows(384).group_size, weights.of_rows(312).group_size) == (
        6,
        3,
        3,
    )
    assert policy.weights_of("pooler.dense").bits == policy.word_embedding.bits == policy.activations.bits == 8
    assert (policy.activations.range, policy.activations.momentum) == ("static", 0.95)
    distill = load_recipe("q-bert").stages[0].distill
    assert distill is not None
    assert not distill.weights().needs_teacher
    for part in (qbert, directq):
        for key in ("name", "summary"):
            part.pop(key)
        for key in ("group", "groups", "group_fit", "bounds"):
            part["stages"][0]["quantize"]["weights"].pop(key)
    paper = qbert.pop("paper")
    assert directq.pop("paper") == f"{paper}, DirectQ"
    assert qbert == directq
    assert (weights.bounds, weights.percentile) == ("percentile", None)
    baseline = load_recipe("directq").policy.weights
    assert (baseline.group, baseline.bounds) == ("matrix", "minmax")


def test_q8bert_is_symmetric_with_running_ranges() -> None:
    recipe = load_recipe("q8bert")
    assert recipe.policy.weights.quantizer(32) == UniformWeightQuantizer(8, True, "matrix")
    activations = recipe.policy.activations
    assert (activations.symmetric, activations.range, activations.momentum) == (True, "static", 0.99)
    assert load_recipe("q8bert", {"compat": "reference"}).policy.activations.momentum == 0.9999


@pytest.mark.parametrize("recipe", ["q-bert", "directq", "q8bert", "int4", "tinybert+q-bert"])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_bits_sets_the_weights_of_every_uniform_stage(recipe: str, bits: int) -> None:
    """The key of the recipe wins over quantize.weights.bits and its kin, which end in it too."""
    found = load_recipe(recipe, {"bits": bits})
    assert (found.policy.weights.bits, found.widths, found.bits) == (bits, (), bits)
    assert found.policy.word_embedding.bits == load_recipe(recipe).policy.word_embedding.bits
    assert [s.quantize.weights.scheme for s in found.stages[:-1]] == ["fp32"] * (len(found.stages) - 1)


def test_several_bits_are_to_be_divided() -> None:
    recipe = load_recipe("q-bert", {"bits": "4/2", "budget": "12MiB"})
    assert (recipe.bits, recipe.widths, recipe.allocation.budget) == ("2/4", (2, 4), "12MiB")
    divided = recipe.with_bits({"layers.0": 4, "layers.1": 2, "pooler": 2})
    policy = divided.policy
    names = ("layers.0.attention.query", "layers.1.ffn.output", "pooler.dense", "layers.2.ffn.output")
    # The pooler's own bits stay; what is in no block has the higher ones.
    assert [policy.weights_of(name).bits for name in names] == [4, 2, 8, 4]
    assert load_recipe("q-bert", {"bits": "2/3/4", "allocation.rule": "error", "budget": 0.1}).widths == (2, 3, 4)
    assert load_recipe("tinybert+q-bert", {"bits": "2/4"}).allocated_stage == 2


def test_a_weights_own_key_wins_over_what_the_recipe_says() -> None:
    recipe = load_recipe("q-bert", {"weights.bits": 3})
    assert (recipe.bits, recipe.policy.weights.bits) == (None, 3)


@pytest.mark.parametrize(
    ("recipe", "overrides", "text"),
    [
        ("q-bert", {"bits": 5}, "bits is 5; allowed: one of 8, 4, 3, 2, or several of them, such as 2/4"),
        ("q-bert", {"bits": "2/2"}, "bits is '2/2'; allowed: one of"),
        ("q-bert", {"bits": "2/3/4"}, "bits is 2/3/4; rank divides two widths. Set allocation.rule=error for more"),
        ("q-bert", {"bits": 4, "weights.bits": 3}, "--set bits and --set weights.bits are both given"),
        ("q-bert", {"budget": "12MiB"}, "allocation.budget is '12MiB', but bits does not name several widths"),
        ("q-bert", {"bits": "2/4", "budget": "a lot"}, "allocation.budget is 'a lot'; allowed: bytes such as 30.5MB"),
        ("q-bert", {"bits": "2/4", "budget": 0.1, "high": 2}, "allocation.budget and allocation.high are both given"),
        ("q-bert", {"bits": "2/4", "rule": "error"}, "allocation.rule is 'error', which needs a limit; set budget"),
        ("q-bert", {"bits": "2/4", "high": -1}, "allocation.high is -1; allowed: a number of blocks, or null"),
        ("q-bert", {"bits": "2/4", "by": "head"}, "allocation.by"),
        ("ternarybert", {"bits": 4}, "bits is 4, which uniform and codebook weights have; here they are ternary"),
        ("int4", {"ternarize": "twn"}, "ternarize is 'twn', but no weights are ternary"),
        ("ternarybert", {"ternarize": "sign"}, "weights.method is 'sign'; allowed: twn"),
        (
            "ternarybert",
            {"ternarize": "twn", "weights.method": "twn"},
            "--set ternarize and --set weights.method are both",
        ),
        ("q8bert", {"activations.momentum": 1}, "activations.momentum is 1"),
    ],
)
def test_what_the_keys_of_a_recipe_refuse(recipe: str, overrides: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe, overrides)
    assert text in str(error.value)


def test_ternarize_is_the_method_of_all_ternary_weights() -> None:
    recipe = load_recipe("binarybert", {"ternarize": "twn-exact"})
    ternary, binary = (stage.quantize for stage in recipe.stages)
    assert ternary.weights.method == ternary.word_embedding.method == "twn-exact"
    assert binary.weights.scheme == "binary"


def test_bibert_and_its_ablation() -> None:
    """The baseline differs in attention and losses only, and each part is one or a few overrides away."""
    bibert, baseline = load_recipe("bibert").as_dict(), load_recipe("bibert-baseline").as_dict()
    parts = {"attention": "bool", "attention_scores": 0, "similarity": 1, "hidden_distance": "direction"}
    changed = load_recipe("bibert-baseline", parts).as_dict()
    for key in ("name", "summary", "paper"):
        bibert.pop(key), changed.pop(key)
    assert bibert == changed != baseline
    quantize = load_recipe("bibert").policy
    assert (quantize.weights.scheme, quantize.weights.group, quantize.weights.centre) == ("binary", "row", "row")
    assert (quantize.activations.scheme, quantize.activations.attention) == ("binary", "bool")


def test_binarybert_splits_what_a_ternary_stage_trained() -> None:
    for name, bits, reach, act in (("binarybert", 8, "token", None), ("binarybert-a4", 4, "learned", "relu")):
        recipe = load_recipe(name)
        ternary, binary = recipe.stages
        assert (recipe.student.width, recipe.student.hidden_act) == (0.5, act)
        assert (ternary.split, binary.split) == (False, True)
        assert (ternary.quantize.weights.scheme, ternary.quantize.word_embedding.group) == ("ternary", "row")
        weights = binary.quantize.weights
        assert (weights.scheme, weights.group, weights.centre, weights.gradient_range) == (
            *("binary", "matrix", "none"),
            None,
        )
        for stage in recipe.stages:
            assert (stage.quantize.activations.bits, stage.quantize.activations.range) == (bits, reach)


def test_joined_recipes_have_the_stages_and_the_student_of_both(tmp_path: Path) -> None:
    for name in ("tinybert+q-bert", "tinybert+bit"):
        (tmp_path / "mine.yaml").write_text(recipe_text(name))
        assert load_recipe(tmp_path / "mine.yaml") == load_recipe(name)
    joined = load_recipe("tinybert+bit", {"student.init": "3x192"})
    assert [stage.name for stage in joined.stages] == ["intermediate", "prediction", "w1a2", "w1a1"]
    assert (joined.name, joined.policy) == ("tinybert+bit", load_recipe("bit").policy)
    assert (joined.student.init, joined.student.hidden_act, joined.student.dropout) == ("3x192", "relu", 0.0)
    assert joined.reference.keys() == {"distill.padding", "distill.reduction", "schedule.optimizer"}
    with pytest.raises(RecipeError, match="two stages of one name"):
        load_recipe("bibert+bibert")
    with pytest.raises(RecipeError, match="recipe 'ternary' is neither"):
        load_recipe("tinybert+ternary")


def test_only_ternary_weights_are_split(tmp_path: Path) -> None:
    text = recipe_text("binarybert")
    (tmp_path / "first.yaml").write_text(text.replace("  - name: ternary\n", "  - name: ternary\n    split: true\n"))
    with pytest.raises(RecipeError, match="stage 'ternary' splits weights; the stage before it must be ternary"):
        load_recipe(tmp_path / "first.yaml")
    with pytest.raises(RecipeError, match=r"student.width is 1.5; allowed: above 0 and at most 1"):
        load_recipe("binarybert", {"student.width": 1.5})


def test_bit_is_a_chain() -> None:
    recipes = {name: load_recipe(name) for name in ("bit", "bit-chain", "bit-single")}
    assert {
        name: [(stage.quantize.activations.bits, stage.distill and stage.distill.teacher) for stage in recipe.stages]
        for name, recipe in recipes.items()
    } == {
        "bit": [(2, "teacher"), (1, "previous")],
        "bit-chain": [(4, "teacher"), (2, "teacher"), (1, "previous")],
        "bit-single": [(1, "teacher")],
    }
    assert recipes["bit"].policy == recipes["bit-chain"].policy == recipes["bit-single"].policy
    with pytest.raises(RecipeError, match=r"distill\.teacher of the first stage is 'previous'"):
        load_recipe("bit-single", {"teacher": "previous"})


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"student.dropout": 1.0}, "student.dropout is 1.0; allowed: a probability below 1, or null"),
        ({"student.hidden_act": "elu"}, "student.hidden_act is 'elu'; allowed: gelu"),
        ({"activations.bits": 8}, "activations.bits is 8; allowed: 1, 2, 4"),
        ({"activations.scale": "none"}, "activations.scale is 'none'; allowed: learned, static"),
        ({"weights.centre": "column"}, "weights.centre is 'column'; allowed: row, matrix, none"),
        ({"quantizer_learning_rate": 0}, "quantizer_learning_rate is 0.0; allowed: a positive number, or null"),
    ],
)
def test_what_bit_refuses(overrides: dict[str, object], text: str) -> None:
    with pytest.raises((RecipeError, TrainingError)) as error:
        load_recipe("bit-single", overrides)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"epochs": 3}, "--set epochs: the recipe has no such key"),
        ({"compat": "reference"}, "recipe 'int8' has no compat 'reference'"),
        ({"activations.range": "static"}, "the stage trains nothing that could set such a range; use range=token"),
        ({"distill": {}}, "--set distill: the recipe has no such key"),
        ({"weights.bits": 6}, "weights.bits is 6; allowed: 8, 4, 3, 2"),
    ],
)
def test_what_a_recipe_without_training_refuses(overrides: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("int8", overrides)
    assert text in str(error.value)


def test_a_leaf_name_sets_it_in_every_stage_and_a_path_is_exact() -> None:
    recipe = load_recipe("ternarybert", {"epochs": 0.5, "activations.range": "static", "distill.schedule.warmup": 0.2})
    assert recipe.stages[0].schedule.epochs == 0.5
    assert recipe.stages[0].schedule.warmup == 0.2
    assert recipe.policy.activations.range == "static"


@pytest.mark.parametrize("key", ["w1a1.learning_rate", "w1a1.schedule.learning_rate"])
def test_a_stages_name_before_a_key_sets_it_there_only(key: str) -> None:
    schedules = [stage.schedule for stage in load_recipe("bit", {"learning_rate": 1e-3, key: 2e-4}).stages]
    assert [schedule.learning_rate for schedule in schedules if schedule] == [1e-3, 2e-4]
    with pytest.raises(RecipeError, match=r"could be quantize\.activations\.bits or quantize\.position_emb"):
        load_recipe("bit", {"w1a1.bits": 2})
    with pytest.raises(RecipeError, match="no such key"):
        load_recipe("bit", {"w1a3.learning_rate": 2e-4})


def test_batch_size_and_batch_tokens_replace_each_other() -> None:
    schedule = load_recipe("ternarybert", {"batch_size": 16}).stages[0].schedule
    assert (schedule.batch_size, schedule.batch_tokens) == (16, None)


def test_compat_reference_brings_back_the_release_and_an_override_wins_over_it() -> None:
    recipe = load_recipe("ternarybert", {"compat": "reference", "optimizer": "adamw"})
    dumped = recipe.as_dict()["stages"][0]
    for key, value in load_recipe("ternarybert").reference.items():
        found = dumped
        for part in key.split("."):
            found = found[part]
        assert found == ("adamw" if key == "schedule.optimizer" else value), key
    assert recipe.compat == "reference"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"epoch": 1}, "--set epoch: the recipe has no such key; did you mean epochs"),
        (
            {"clip": 1},
            "could be quantize.activations.clip or quantize.position_embedding.clip or ",
        ),
        ({"range": "batch"}, "range is 'batch'; allowed: token, static, tensor"),
        ({"packing": "3bit"}, "packing: Input should be '2bit' or 'trits' (found '3bit')"),
        ({"epochs": "many"}, "stages.0.schedule.epochs"),
        ({"reduction": "sum"}, "reduction"),
        ({"temperature": 0}, "distill.temperature is 0"),
    ],
)
def test_bad_overrides_are_named(overrides: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("ternarybert", overrides)
    assert text in str(error.value)


def test_unknown_recipe_lists_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"neither a readable YAML file nor one of .*ternarybert.*did you mean"):
        load_recipe("ternarybrt")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text + "extra: 1\n", "extra"),
        (lambda text: text.replace("    schedule:", "    schedule:\n      pace: 1"), "pace"),
        (lambda text: text.replace("attention_scores", "attention_score"), "attention_score"),
        (lambda text: text[: text.index("stages:")] + "stages: []\n", "no stages"),
        (lambda text: "- a list\n", "list"),
        (lambda text: text[: text.index("    schedule:")], "distill and schedule belong together"),
        (lambda text: "a: [", "not valid YAML"),
    ],
)
def test_a_recipe_file_of_ones_own_is_checked(tmp_path: Path, change: Callable[[str], str], text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_text("ternarybert"))
    assert load_recipe(file).name == "ternarybert"
    file.write_text(change(recipe_text("ternarybert")))
    with pytest.raises(RecipeError) as error:
        load_recipe(file)
    assert text in str(error.value)

"""The whole line on a tiny model: fine-tuned teacher in, packed artifact out, measured by the engine.

Oracles: the fake-quantized student for logits and codes, an undisturbed run for a killed one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch

import bitpress
from bitpress.artifact import UniformTensor, describe, read_artifact, verify
from bitpress.data import Dataset, get_task, read_dataset
from bitpress.encoder import EncoderConfig, load_classifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import apply_policy, encode_weights
from bitpress.recipes.compress_inputs import CompressInputs
from bitpress.recipes.runner import compress, post_training_artifact
from bitpress.recipes.schema import load_recipe
from bitpress.recipes.teacher_task import TeacherTask
from bitpress.train import EncodedDataset
from bitpress.train.running_stage import RunningStage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def press(tiny: Any, out: Path, **more: Any) -> Any:
    overrides = tiny_task.FAST_COMPRESS | more.pop("overrides", {})
    return compress(
        more.pop("teacher", tiny.teacher),
        train=tiny.train,
        dev=tiny.dev,
        out=out,
        overrides=overrides,
        quiet=True,
        **more,
    )


@pytest.fixture(scope="module")
def small(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The artifact of the default recipe."""
    return press(tiny, tmp_path_factory.mktemp("compress") / "small")


def test_the_artifact_keeps_the_teachers_accuracy(small: Any) -> None:
    assert small.teacher["value"] > 0.9
    assert small.drop_points <= 5
    assert small.artifact["majority"] < 0.6
    assert small.artifact["n"] == 120


def test_the_reported_numbers_are_those_of_the_files(small: Any, tiny: Any) -> None:
    out = Path(small.out)
    assert small.artifact["total_bytes"] == (out / "model.safetensors").stat().st_size == describe(out)["total_bytes"]
    with bitpress.load(out) as model:
        dataset = read_dataset(tiny.dev, get_task("classification"), label_names=model.labels)
        assert model.evaluate(dataset)["value"] == small.artifact["value"]
    card = (out / "README.md").read_text()
    assert f"{small.artifact['value']:.4f}" in card
    assert f"{small.artifact['total_bytes']:,}" in card
    assert json.loads((out / "provenance.json").read_text())["recipe"]["name"] == "ternarybert"


def test_engine_and_student_agree(small: Any) -> None:
    check = small.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    assert check["max_logit_difference"] == check["different_predictions"] == 0


def test_predictions(small: Any) -> None:
    with bitpress.load(small.out) as model:
        assert model("the superb film")["label"] == "positive"
        assert [p["label"] for p in model(["a dull plot", "the charming actor"])] == ["negative", "positive"]


def test_finished_is_not_repeated(small: Any, tiny: Any) -> None:
    before = (Path(small.out) / "model.safetensors").stat().st_mtime_ns
    assert press(tiny, Path(small.out), max_drop=50).within_max_drop is True
    assert (Path(small.out) / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"packing = '2bit'; this one has 'trits'"):
        press(tiny, Path(small.out), overrides={"packing": "trits"})


def test_what_stays_fp32_is_listed_before_training(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(
        tiny.teacher,
        train=tiny.train,
        dev=tiny.dev,
        out=tmp_path / "small",
        overrides={"batch_tokens": 512, "max_steps": 2},
    )
    told = capsys.readouterr().err
    before, after = told.index("stays fp32: embeddings.position.weight"), told.index("distill: step")
    assert before < after
    for kept in ("classifier", "LayerNorm", "bias"):
        assert kept in told[:after]


@pytest.mark.parametrize(
    "overrides",
    [
        {"activations.range": "static"},
        {"activations.symmetric": True, "packing": "trits"},
        {"compat": "reference"},
        {"weights.method": "twn-exact", "word_embedding.method": "twn-exact"},
        {"ternarize": "lat"},
        {"ternarize": "lat-exact", "packing": "trits"},
        {"weights.scheme": "fp32", "word_embedding.scheme": "fp32", "activations.scheme": "fp32"},
    ],
    ids=["static", "symmetric-trits", "reference", "exact", "lat", "lat-exact", "fp32"],
)
def test_every_choice_freezes_and_the_engine_follows_the_student(
    tiny: Any, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    result = press(tiny, tmp_path / "small", overrides=overrides | {"epochs": 1})
    check = result.artifact["engine_vs_student"]
    assert check["different_predictions"] == 0
    if overrides.get("weights.scheme") == "fp32":
        assert check["arithmetic"] == "torch"
        assert check["max_logit_difference"] < 1e-4
    else:
        assert check["identical_logits"] == check["n"] > 0


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("ternarybert", {"packing": "trits"}),
        ("ternarybert", {"ternarize": "lat"}),
        ("int8", {}),
        ("int8", {"weights.pair_bound": False, "weights.group": "matrix", "word_embedding.symmetric": False}),
        ("int4", {}),
        ("int4", {"weights.group_size": 32, "weights.symmetric": False, "word_embedding.group_size": 32}),
        ("int4", {"weights.group": "row_block", "weights.group_size": 6}),
        (
            "int4",
            {"weights.group": "row_block", "weights.group_size": None, "weights.groups": 8, "blocks": {"layers.1": 2}},
        ),
        ("int4", {"weights.bounds": "mse", "word_embedding.bounds": "percentile", "word_embedding.percentile": 90}),
        ("int3", {}),
        ("int3", {"weights.bits": 2, "word_embedding.bits": 2}),
        ("gobo", {}),
        ("gobo", {"bits": 4, "weights.objective": "l2", "blocks": {"layers.1.ffn": 2, "pooler": {"outliers": "none"}}}),
        ("gobo", {"weights.outliers": "z", "weights.outlier_threshold": 2.0}),
        ("bibert", {}),
        ("bit", {}),
    ],
)
def test_codes_in_the_file_are_those_of_training(
    tiny: Any, tmp_path: Path, recipe: str, overrides: dict[str, Any]
) -> None:
    """Post-training, so that the latent weights are at hand: codes and scales equal the quantizers', bit for bit."""
    post_training_artifact(tiny.teacher, recipe, tmp_path / "packed", overrides)
    model = load_classifier(tiny.teacher)
    apply_policy(model, load_recipe(recipe, overrides).policy)
    artifact = read_artifact(tmp_path / "packed")
    assert verify(tmp_path / "packed")["ok"]
    encoded = encode_weights(model)
    assert len(encoded) == 1 + 2 * 6 + 1  # word embedding, six matrices a layer, pooler
    for name, (codes, scale, *offset) in encoded.items():
        stored = artifact.quantized(name)
        assert np.array_equal(stored.codes, codes.numpy()), name
        assert stored.scale.tobytes() == scale.numpy().tobytes(), name
        if isinstance(stored, UniformTensor) and stored.offset is not None:
            assert stored.offset.tobytes() == offset[0].numpy().tobytes(), name
        module = model.get_submodule(name.removesuffix(".weight"))
        fake = module.weight_quantizer(module.weight).detach().numpy()
        # -0.0 and 0.0 are one value here: the engine adds products, where the sign of zero is lost.
        assert np.array_equal(artifact.dense(name), fake), name


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("bibert", {}),
        ("bibert", {"compat": "reference"}),
        ("bibert", {"attention_centre": "running", "side_data": "fp16"}),
        ("bibert-baseline", {}),
        ("bit", {}),
        ("bit-chain", {}),
        ("bit-single", {"activations.threshold": "scalar"}),
        ("bit-single", {"activations.threshold": "none", "activations.scale": "static"}),
    ],
    ids=["bibert", "bibert-reference", "bibert-centred", "baseline", "bit", "bit-chain", "bit-scalar", "bit-static"],
)
def test_a_fully_binarized_student_runs_as_it_was_trained(
    tiny: Any, tmp_path: Path, recipe: str, overrides: dict[str, Any]
) -> None:
    result = press(tiny, tmp_path / "small", recipe=recipe, overrides={"epochs": 8} | overrides)
    check = result.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    flips = check["sign_flips"]
    assert len(flips["flipped"]) == len(flips["of"]) == 3
    assert flips["of"][0] == flips["of"][2] > 10_000
    assert sum(flips["flipped"]) <= 5e-3 * sum(flips["of"])  # torch's roundings against the engine's
    if recipe != "bibert-baseline":
        assert result.artifact["value"] > result.artifact["majority"] + 0.1, "a student that learned nothing"
    lines = [json.loads(line) for line in (tmp_path / "small.run" / "scalars.jsonl").read_text().splitlines()]
    probes = [line["probes"] for line in lines if "probes" in line]
    assert len(probes) > 2
    first = next(line for line in lines if "probes" in line)
    assert (first["step"] == 0) == (not recipe.startswith("bit"))  # elastic scales wait for the first batch
    assert np.shape(probes[0]["attention_entropy"]) == (2, 4)
    entropy = np.mean(probes[-1]["attention_entropy"])
    assert entropy == 0 if recipe == "bibert-baseline" else entropy > 0.2


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("binarybert", {}),
        ("binarybert", {"activations.range": "static", "binary.quantize.weights.group": "row"}),
        ("binarybert", {"student.width": 1, "side_data": "fp16"}),
        ("binarybert-a4", {"ternarize": "lat"}),
        ("binarybert-a4", {"compat": "reference", "activations.bits": 8}),
    ],
    ids=["a8", "a8-static", "a8-whole", "a4", "a8-learned"],
)
def test_a_split_student_runs_as_it_was_trained(
    tiny: Any, tmp_path: Path, recipe: str, overrides: dict[str, Any]
) -> None:
    result = press(tiny, tmp_path / "small", recipe=recipe, overrides={"epochs": 6, "learning_rate": 2e-3} | overrides)
    check = result.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    assert result.artifact["value"] > result.artifact["majority"] + 0.1, "a student that learned nothing"
    artifact = read_artifact(tmp_path / "small")
    whole = overrides.get("student.width") == 1
    heads, neurons = (4, 64) if whole else (2, 32)
    assert artifact.config.num_attention_heads == heads
    assert artifact.config.tensors["layers.1.ffn.intermediate.weight"].shape == (neurons, 32)
    assert artifact.config.tensors["layers.1.attention.output.weight"].shape == (32, 8 * heads)
    assert artifact.config.activations.bits == overrides.get("activations.bits", 4 if recipe.endswith("a4") else 8)
    assert verify(tmp_path / "small")["ok"]


@pytest.mark.parametrize("recipe", ["bibert", "ternarybert"])
def test_side_data_in_half_precision_is_what_the_student_has(tiny: Any, tmp_path: Path, recipe: str) -> None:
    overrides = {"side_data": "fp16", "epochs": 2}
    result = press(tiny, tmp_path / "small", recipe=recipe, overrides=overrides)
    check = result.artifact["engine_vs_student"]
    assert check["identical_logits"] == check["n"] > 0
    full = press(tiny, tmp_path / "full", recipe=recipe, overrides=overrides | {"side_data": "fp32"})
    saved = full.artifact["total_bytes"] - result.artifact["total_bytes"]
    artifact = read_artifact(tmp_path / "small")
    halves = [spec.shape for spec in artifact.config.tensors.values() if spec.scheme == "fp16"]
    scales = [spec.scale_shape for spec in artifact.config.tensors.values() if spec.scale_bits == 16]
    assert len(halves) == 2 + 2 + 2 * (6 + 4) + 2  # positions and types, embedding norm, layers, pooler and classifier
    assert bool(scales) == (recipe == "bibert")
    numbers = sum(int(np.prod(shape)) for shape in [*halves, *scales])
    assert saved == pytest.approx(2 * numbers, abs=600)  # the names of dtypes and schemes differ too
    assert verify(tmp_path / "small")["ok"]


def test_a_chain_of_students_each_teaches_the_next(tiny: Any, tmp_path: Path) -> None:
    """With the bits of the stage before, the second student begins as its teacher, and has its hidden states."""
    still = {f"w1a1.schedule.{key}": 1e-12 for key in ("learning_rate", "quantizer_learning_rate")}
    overrides = {"freeze": False, "activations.bits": 2, "max_steps": 10} | still
    press(tiny, tmp_path / "small", recipe="bit", overrides=overrides)
    lines = [json.loads(line) for line in (tmp_path / "small.run" / "scalars.jsonl").read_text().splitlines()]
    hidden = {line["stage"]: line["components"]["hidden"] for line in lines if "components" in line}
    assert hidden["w1a2"] > 0.5
    assert hidden["w1a1"] < 1e-6


@pytest.mark.parametrize("recipe", ["int8", "int4", "int3", "gobo"])
def test_recipes_without_training_need_none_and_are_measured_by_the_engine(
    tiny: Any, tmp_path: Path, recipe: str
) -> None:
    result = compress(tiny.teacher, recipe=recipe, dev=tiny.dev, out=tmp_path / "small", quiet=True)
    assert result.stages == [{"name": "quantize", "steps": 0}]
    assert result.artifact is not None
    assert result.drop_points <= 5
    assert result.artifact["total_bytes"] == (tmp_path / "small" / "model.safetensors").stat().st_size
    check = result.artifact["engine_vs_student"]
    assert check["arithmetic"] == "engine"
    assert check["identical_logits"] == check["n"] > 0
    provenance = json.loads((tmp_path / "small" / "provenance.json").read_text())
    assert (provenance["recipe"]["name"], provenance["train_sha256"]) == (recipe, None)
    weights = (tmp_path / "small" / "model.safetensors").stat().st_mtime_ns
    again = compress(tiny.teacher, recipe=recipe, dev=tiny.dev, out=tmp_path / "small", quiet=True)
    assert again == result
    assert (tmp_path / "small" / "model.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize("recipe", ["int8", "bibert-baseline"])
def test_a_head_with_relu_runs_as_the_student_has_it(tiny: Any, tmp_path: Path, recipe: str) -> None:
    overrides: dict[str, Any] = {"student.head": "relu"}
    if recipe != "int8":
        overrides |= {"max_steps": 2}
    result = compress(
        tiny.teacher, recipe=recipe, train=tiny.train, dev=tiny.dev, out=tmp_path / "small", overrides=overrides,
        quiet=True,
    )  # fmt: skip
    check = result.artifact["engine_vs_student"]  # type: ignore[index]
    assert (check["arithmetic"], check["identical_logits"]) == ("engine", check["n"])
    assert json.loads((tmp_path / "small" / "config.json").read_text())["head"] == "relu"


@pytest.mark.parametrize("recipe", ["int8", "int4", "int3", "gobo"])
@pytest.mark.parametrize("with_train", [False, True])
def test_recipes_without_training_keep_the_accuracy(tiny: Any, tmp_path: Path, recipe: str, with_train: bool) -> None:
    """The fake-quantized teacher, scored by torch; training data may be given and changes nothing."""
    train = tiny.train if with_train else None
    overrides = {"freeze": False}
    result = compress(
        tiny.teacher, recipe=recipe, train=train, dev=tiny.dev, out=tmp_path / "s", overrides=overrides, quiet=True
    )
    assert result.artifact is None
    assert result.teacher["value"] > 0.9
    assert result.drop_points <= 5


def test_a_recipe_that_trains_needs_training_data(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"recipe 'ternarybert' trains the student; give labelled text .* --train"):
        compress(tiny.teacher, dev=tiny.dev, out=tmp_path / "small", quiet=True)
    assert not (tmp_path / "small.run").exists()


def test_what_a_recipe_without_training_does_is_said(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(tiny.teacher, recipe="int4", dev=tiny.dev, out=tmp_path / "s", overrides={"freeze": False})
    told = capsys.readouterr().err
    assert "stage quantize:\n  uniform, 4 bits, one scale a group of 128 inputs: 14 tensors" in told
    assert "stays fp32: classifier.weight" in told
    assert "training texts" not in told


def test_regression_and_pairs(tmp_path: Path) -> None:
    encoder = tiny_task.write_encoder(tmp_path / "encoder")
    train = tiny_task.write_scores(tmp_path / "train.tsv", 300, seed=3)
    dev = tiny_task.write_scores(tmp_path / "dev.tsv", 80, seed=4)
    arguments = {"train": train, "dev": dev, "quiet": True}
    bitpress.finetune(encoder, task="regression", out=tmp_path / "t", overrides=tiny_task.FAST, **arguments)
    result = compress(tmp_path / "t", out=tmp_path / "s", overrides=tiny_task.FAST_COMPRESS, **arguments)
    assert result.metric == "pearson"
    assert result.artifact is not None
    assert result.artifact["value"] > 0.7
    with bitpress.load(tmp_path / "s") as model:
        assert model.task.pair
        answer = model(("the superb film", "a charming actor"))
        assert answer["label"] is None
        assert answer["score"] > 0.5


@pytest.mark.parametrize(("data", "steps"), [("all", 10), ("original", 4), ("auto", 10)])
def test_a_stage_may_learn_from_the_original_rows_of_augmented_text(
    tiny: Any, tmp_path: Path, data: str, steps: int
) -> None:
    rows = [line.split("\t") for line in tiny.train.read_text().splitlines()[1:33]]
    lines = [
        {"sentence": text, "label": label, "source_row": i, "variant": variant}
        for i, (text, label) in enumerate(rows)
        for variant in range(3 if i < 24 else 1)
    ]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    overrides = {"data": data, "batch_size": 8, "epochs": 1}
    result = compress(tiny.teacher, train=train, dev=tiny.dev, out=tmp_path / "s", overrides=overrides, quiet=True)
    assert result.stages[0]["steps"] == steps


def test_auto_means_the_original_rows_where_numbers_are_predicted() -> None:
    encoded = EncodedDataset.from_sequences([[1], [2], [3]], None, np.zeros(3, np.float32))
    read = Dataset(["a", "b", "c"], None, np.zeros(3, np.float32), [], "", "", np.array([True, False, True]))
    for kind, expected in (("regression", [1, 3]), ("classification", [1, 2, 3])):
        known = TeacherTask(get_task(kind), 8, None, EncoderConfig())
        inputs = CompressInputs(Path(), known, load_recipe("tinybert"), 8, None, read, read, encoded, encoded)  # type: ignore[arg-type]
        assert inputs.training("auto").input_ids.tolist() == expected
        assert inputs.training("all").input_ids.tolist() == [1, 2, 3]
    assert [stage.distill.data for stage in load_recipe("tinybert").stages if stage.distill] == ["all", "auto"]


def test_swapped_labels_are_found_before_training(tiny: Any, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny.teacher, teacher)
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "negative"}
    config["label2id"] = {"positive": 0, "negative": 1}
    (teacher / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match="look permuted"):
        press(tiny, tmp_path / "small", teacher=teacher)
    assert not (tmp_path / "small").exists()


def test_a_bare_encoder_is_no_teacher(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not fine-tuned: its checkpoint lacks classifier"):
        press(tiny, tmp_path / "small", teacher=tiny.encoder)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"range": "tensor"}, "depend on the texts beside it and on padding"),
        ({"activations.scheme": "fp32"}, "engine multiplies ternary weights by quantized activations only"),
        (
            {"weights.scheme": "uniform", "activations.scheme": "fp32"},
            "engine multiplies uniform weights by quantized activations only",
        ),
        ({"weights.scheme": "fp32"}, "quantizes activations only where the weights are quantized"),
        ({"weights.group": "row"}, "one scale a matrix"),
    ],
)
def test_what_no_artifact_can_hold_is_refused_before_training(
    tiny: Any, tmp_path: Path, overrides: dict[str, Any], text: str
) -> None:
    with pytest.raises(RecipeError, match=text):
        press(tiny, tmp_path / "small", overrides=overrides)
    assert not (tmp_path / "small.run").exists()
    trained = press(tiny, tmp_path / "small", overrides=overrides | {"freeze": False, "max_steps": 2})
    assert trained.artifact is None
    assert 0 <= trained.student["value"] <= 1


_RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import tiny_task
from bitpress.recipes.runner import compress
torch.set_num_threads(1)
overrides = tiny_task.FAST_COMPRESS | {"checkpoint_seconds": 0.0, "evaluate_every": 7, "activations.range": "static"}
compress(sys.argv[2], train=sys.argv[3], dev=sys.argv[4], out=sys.argv[5], overrides=overrides)
"""


def _start(tiny: Any, out: Path) -> subprocess.Popen[bytes]:
    arguments = [Path(tiny_task.__file__).parent, tiny.teacher, tiny.train, tiny.dev, out]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_killed_three_times_it_ends_in_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    """kill −9 at random moments after training began, the same command again; oracle: a run that nobody disturbed."""
    assert _start(tiny, tmp_path / "calm").wait(timeout=120) == 0
    rng = random.Random(5)
    scalars = tmp_path / "killed.run" / "scalars.jsonl"
    kills = 0
    for _ in range(3):
        size = scalars.stat().st_size if scalars.exists() else 0
        process = _start(tiny, tmp_path / "killed")
        # Training has moved on by a line or two, then a random moment more.
        while process.poll() is None and not (scalars.exists() and scalars.stat().st_size > size):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2, "the run ended before it could be killed"
    assert _start(tiny, tmp_path / "killed").wait(timeout=120) == 0
    calm, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("calm", "killed"))
    assert calm == killed


@pytest.mark.parametrize(("recipe", "stages"), [("bit", ("w1a2", "w1a1")), ("binarybert-a4", ("ternary", "binary"))])
def test_an_interrupted_chain_ends_in_the_same_bytes(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, stages: tuple[str, str]
) -> None:
    """Learned scales, thresholds and whether they have started travel in checkpoints, and so do split weights. Oracle:
    an undisturbed run. Stopped in the middle of each stage, after a checkpoint."""
    overrides = {"max_steps": 12, "evaluate_every": 4, "checkpoint_seconds": 0.0}
    press(tiny, tmp_path / "calm", recipe=recipe, overrides=overrides)
    monkeypatch.setattr("bitpress.train.running_stage.CHECKPOINT_SHARE", 1e9)  # however long writing takes
    train_step, resumed = RunningStage._train_step, []

    def stop(stage: RunningStage) -> None:
        if stage.resumed_from is None and stage.step == 7:
            raise KeyboardInterrupt
        if stage.step == stage.resumed_from:
            resumed.append((stage.name, stage.step))
        train_step(stage)

    monkeypatch.setattr(RunningStage, "_train_step", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            press(tiny, tmp_path / "stopped", recipe=recipe, overrides=overrides)
    press(tiny, tmp_path / "stopped", recipe=recipe, overrides=overrides)
    assert resumed == [(stage, 7) for stage in stages]
    calm, stopped = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("calm", "stopped"))
    assert calm == stopped


def test_no_torch_in_the_process_that_predicts(small: Any) -> None:
    code = (
        "import sys, bitpress; model = bitpress.load(sys.argv[1]); print(model('the superb film')['label']); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code, small.out], capture_output=True, text=True, check=True).stdout
    assert told.split("\n")[:2] == ["positive", "[]"]


def test_torch_threads_do_not_matter_to_the_codes(tiny: Any) -> None:
    model = load_classifier(tiny.teacher)
    apply_policy(model, load_recipe("ternarybert").policy)
    encodings = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        encodings.append({name: (c.clone(), s.clone()) for name, (c, s) in encode_weights(model).items()})
    for name, (codes, scale) in encodings[0].items():
        assert torch.equal(codes, encodings[1][name][0])
        assert torch.equal(scale, encodings[1][name][1])

"""Checkpoints of every family, read and written. Oracle: transformers' sequence classifiers, within the 1e-5 that the
project promises for fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_models import CASES, POSITIONS, batch, make_checkpoint, transformers_logits
from safetensors.torch import load_file, save_file

from bitpress.encoder import (
    EncoderConfig,
    MaskedLanguageHead,
    SequenceClassifier,
    load_classifier,
    load_config,
    save_classifier,
    save_encoder,
)
from bitpress.encoder.names import from_hf_name, has_tensor, is_ignored, to_hf_name
from bitpress.errors import UnsupportedModelError
from bitpress.families import FAMILIES, most_tokens

TOLERANCE = 1e-5


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def pad_id(model: SequenceClassifier) -> int:
    assert model.config.pad_token_id is not None
    return model.config.pad_token_id


def test_every_family_has_a_case() -> None:
    assert {CASES[case][0] for case in CASES} == {family.name for family in FAMILIES.values()}


@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize(("rows", "length", "padded"), [(1, 1, False), (1, POSITIONS, False), (4, 9, True)])
@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, labels: int, rows: int, length: int, padded: bool, collect: bool, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model", num_labels=labels)
    model = load_classifier(tmp_path / "model")
    assert model.fresh_tensors == ()
    inputs = batch(rows, length, padded, pad_id(model))
    with torch.no_grad():
        close(model(*inputs, collect=collect).logits, transformers_logits(theirs, *inputs))


@pytest.mark.parametrize("case", CASES)
def test_hidden_states(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    ids, mask, types = batch(2, 6)
    inputs = {"token_type_ids": types} if getattr(theirs.config, "type_vocab_size", 1) > 1 else {}
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, **inputs, output_hidden_states=True).hidden_states
        found = model(ids, mask, types, collect=True).hidden_states
    assert len(found) == len(expected) == 3
    for ours, state in zip(found, expected, strict=True):
        close(ours, state)


@pytest.mark.parametrize("case", CASES)
def test_one_token_more_than_there_are_positions(case: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    assert model.config.max_position_embeddings == POSITIONS
    with pytest.raises(UnsupportedModelError, match=f"a text of {POSITIONS + 1} tokens; this model has {POSITIONS} "):
        model(torch.full((1, POSITIONS + 1), 5))


@pytest.mark.parametrize("case", CASES)
def test_names_map_both_ways(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    family = model.config.family
    names = [name for name in model.state_dict() if has_tensor(name, family)]
    assert sorted(to_hf_name(name, family) for name in names) == sorted(theirs.state_dict())
    for name in names:
        stored = to_hf_name(name, family)
        assert from_hf_name(stored, family) == name
        assert from_hf_name(stored.removeprefix(family.prefix), family) == name
        assert not is_ignored(stored, family)


@pytest.mark.parametrize("labels", [["no", "yes"], ["a", "b", "c"], ["score"]])
@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_of_the_same_family(case: str, labels: list[str], tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model", num_labels=len(labels))
    model = load_classifier(tmp_path / "model", id2label=labels)
    save_classifier(model, tmp_path / "out")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert type(theirs).__name__ == f"{CASES[case][0]}ForSequenceClassification"
    assert theirs.config.id2label == dict(enumerate(labels))
    inputs = batch(4, 9, padded=True, pad_id=pad_id(model))
    with torch.no_grad():
        logits = model(*inputs).logits
        close(transformers_logits(theirs, *inputs), logits)
        again = load_classifier(tmp_path / "out")
        assert torch.equal(again(*inputs).logits, logits)
    assert again.config == model.config


@pytest.mark.parametrize("case", CASES)
def test_files_have_the_same_tensors_after_a_round_trip(case: str, tmp_path: Path) -> None:
    """All rows that a text reads; of a position table's rows before those transformers reads none."""
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    save_classifier(model, tmp_path / "out")
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        skipped = model.config.position_offset if "position_embeddings" in name else 0
        assert tensor.shape == after[name].shape
        assert torch.equal(tensor[skipped:], after[name][skipped:]), name


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_that_of_transformers(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model", num_labels=3)
    save_classifier(load_classifier(tmp_path / "model"), tmp_path / "out")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    own = theirs.config.to_dict()
    found = read.to_dict()
    assert {key: found[key] for key in own if key != "_name_or_path"} == {
        key: value for key, value in own.items() if key != "_name_or_path"
    }


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_an_empty_config_has_the_defaults_of_transformers(family: Any) -> None:
    ours = EncoderConfig.from_hf({"model_type": family.model_type})
    theirs = getattr(transformers, f"{family.name}Config")()
    written = ours.to_hf()
    for key in family.config.values():
        if hasattr(theirs, key):
            assert written[key] == getattr(theirs, key), key


@pytest.mark.parametrize("case", CASES)
def test_a_bare_encoder_gets_a_fresh_head(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model")
    theirs.base_model.save_pretrained(tmp_path / "body")
    model = load_classifier(tmp_path / "body", num_labels=4, seed=7)
    other = load_classifier(tmp_path / "body", num_labels=4, seed=8)
    assert set(model.fresh_tensors) >= {"classifier.weight", "classifier.bias"}
    assert all(name.startswith(("classifier.", "pooler.")) for name in model.fresh_tensors)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    inputs = batch(pad_id=pad_id(model))
    whole = load_classifier(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(model.encode(*inputs)[0], whole.encode(*inputs)[0])


@pytest.mark.parametrize("case", CASES)
def test_a_saved_encoder_loads_in_transformers(case: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    save_encoder(model, tmp_path / "out")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    assert type(theirs).__name__ == f"{CASES[case][0]}Model"
    ids, mask, types = batch(2, 6)
    inputs = {"token_type_ids": types} if model.config.type_vocab_size > 1 else {}
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, **inputs).last_hidden_state
        close(model.encode(ids, mask, types)[0], expected)


@pytest.mark.parametrize("case", CASES)
def test_heads_of_other_tasks_are_ignored(case: str, tmp_path: Path) -> None:
    """A masked-language model's and a question answerer's file is an encoder to start from."""
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    inputs = batch(pad_id=pad_id(model))
    for task in ("MaskedLM", "QuestionAnswering"):
        other = getattr(transformers, f"{CASES[case][0]}For{task}").from_pretrained(tmp_path / "model")
        other.save_pretrained(tmp_path / task)
        found = load_classifier(tmp_path / task, num_labels=2, head="texts")
        assert {name.split(".")[0] for name in found.fresh_tensors} == {"pooler", "classifier"}
        with torch.no_grad():
            assert torch.equal(found.encode(*inputs)[0], model.encode(*inputs)[0])


@pytest.mark.parametrize("case", CASES)
def test_missing_tensor(case: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model")
    family = load_config(tmp_path / "model").family
    name = to_hf_name("layers.1.attention.key.bias", family)
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    count = len(tensors)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(UnsupportedModelError) as caught:
        load_classifier(tmp_path / "model")
    assert f"tensor '{name}' is missing (found {count - 1} tensors of {count})" in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_errors_name_the_keys_of_the_family(case: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model")
    family = load_config(tmp_path / "model").family
    file = tmp_path / "model" / "config.json"
    document = json.loads(file.read_text())
    for field, value in (("hidden_size", 0), ("hidden_act", "prelu"), ("hidden_dropout_prob", 2)):
        key = family.config[field]
        with pytest.raises(UnsupportedModelError, match=rf"config\.json: {key} is {value!r}; "):
            EncoderConfig.from_hf({**document, key: value})
    with pytest.raises(UnsupportedModelError, match=rf"{family.config['hidden_size']} 25 is not a multiple of "):
        EncoderConfig.from_hf({**document, family.config["hidden_size"]: 25})


@pytest.mark.parametrize("model_type", ["roberta", "camembert", "xlm-roberta"])
def test_positions_start_after_padding(model_type: str) -> None:
    document = {"model_type": model_type, "max_position_embeddings": 514}
    config = EncoderConfig.from_hf(document)
    assert (config.max_position_embeddings, config.position_offset) == (512, 2)
    assert config.to_hf()["max_position_embeddings"] == 514
    assert config.to_artifact()["max_position_embeddings"] == 512
    assert most_tokens(config.to_hf()) == most_tokens({**config.to_artifact(), "quantization_config": {}}) == 512
    with pytest.raises(UnsupportedModelError, match="pad_token_id is None; it must be an id, because the positions of"):
        EncoderConfig.from_hf({**document, "pad_token_id": None})
    for positions in (2, 0, "514", True):
        with pytest.raises(UnsupportedModelError, match=r"max_position_embeddings is .*; it must be .* above 2: "):
            EncoderConfig.from_hf({**document, "max_position_embeddings": positions})


def test_other_families_are_refused_with_what_works() -> None:
    works = ", ".join(f"'{name}'" for name in sorted(FAMILIES))
    for other in ("albert", "deberta-v2", "modernbert", "xlm-roberta-xl", "mpnet", "t5"):
        with pytest.raises(UnsupportedModelError, match=f"model_type is '{other}'; bitpress runs {works}"):
            EncoderConfig.from_hf({"model_type": other})


@pytest.mark.parametrize("case", CASES)
def test_training_changes_only_what_checkpoints_hold(case: str, tmp_path: Path) -> None:
    """Oracle: what is saved after a step gives the same logits."""
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    inputs = batch(4, 9, padded=True, pad_id=pad_id(model))
    model(*inputs).logits.square().sum().backward()
    optimizer.step()
    model.eval()
    save_classifier(model, tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path / "out")(*inputs).logits, model(*inputs).logits)


@pytest.mark.parametrize("head", ["linear", "relu", "dense_relu", "dense_gelu"])
@pytest.mark.parametrize("case", CASES)
def test_a_head_of_another_form_is_kept(case: str, head: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model")
    model = load_classifier(tmp_path / "model")
    own = model.config.head
    model.set_head(head)
    save_classifier(model, tmp_path / "out")
    assert ("head" in json.loads((tmp_path / "out" / "config.json").read_text())) == (head != own)
    inputs = batch(pad_id=pad_id(model))
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path / "out")(*inputs).logits, model(*inputs).logits)


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - {"bert"}))
def test_masked_language_models_are_berts(model_type: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"model_type is '{model_type}'; bitpress has .* 'bert' only"):
        MaskedLanguageHead(EncoderConfig.from_hf({"model_type": model_type}))

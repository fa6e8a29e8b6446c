"""Reading and writing Hugging Face directories. Oracle: transformers, and the texts of refusals."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bitpress.encoder import EncoderConfig, SequenceClassifier, load_classifier, load_config, save_classifier
from bitpress.encoder.names import from_hf_name, is_ignored, to_hf_name
from bitpress.errors import UnsupportedModelError


def rewrite(directory, change):
    """Apply `change` to the tensors of model.safetensors (a dict of clones)."""
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file(change(tensors) or tensors, file)


def edit_config(directory, **values):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(directory, **arguments):
    with pytest.raises(UnsupportedModelError) as caught:
        load_classifier(directory, **arguments)
    return str(caught.value)


# Names


def test_names_map_both_ways(make_checkpoint):
    directory, theirs = make_checkpoint()
    model = load_classifier(directory)
    assert sorted(to_hf_name(name) for name in model.state_dict()) == sorted(theirs.state_dict())
    for name in (*model.state_dict(), "layers.11.attention.distance.weight"):
        assert from_hf_name(to_hf_name(name)) == name
        assert from_hf_name(to_hf_name(name).removeprefix("bert.")) == name
        assert not is_ignored(to_hf_name(name))


def test_legacy_and_foreign_names():
    assert from_hf_name("bert.embeddings.LayerNorm.gamma") == "embeddings.norm.weight"
    assert from_hf_name("encoder.layer.3.output.LayerNorm.beta") == "layers.3.ffn.norm.bias"
    assert from_hf_name("bert.encoder.layer.0.crossattention.self.query.weight") is None
    for name in (
        "bert.embeddings.position_ids",
        "cls.predictions.bias",
        "cls.seq_relationship.weight",
        "qa_outputs.bias",
    ):
        assert is_ignored(name)
    with pytest.raises(KeyError):
        to_hf_name("layers.0.attention.gate.weight")


# Reading


@pytest.mark.parametrize("kind", ["safetensors", "bin", "bin-legacy", "sharded", "sharded-bin"])
def test_each_kind_of_file(make_checkpoint, batch, kind):
    directory, theirs = make_checkpoint(num_labels=3)
    tensors = load_file(directory / "model.safetensors")
    if kind != "safetensors":
        (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    suffix = "safetensors" if kind == "sharded" else "bin"
    stem = "model" if kind == "sharded" else "pytorch_model"
    if kind.startswith("bin"):
        torch.save(tensors, directory / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "bin")
    elif kind.startswith("sharded"):
        shards = {f"{stem}-1.{suffix}": names[::2], f"{stem}-2.{suffix}": names[1::2]}
        for file, part in shards.items():
            write = save_file if suffix == "safetensors" else torch.save
            write({name: tensors[name] for name in part}, directory / file)
        weight_map = {name: file for file, part in shards.items() for name in part}
        (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    ids, mask, types = batch(padded=True)
    model = load_classifier(directory)
    assert model.fresh_tensors == ()
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        torch.testing.assert_close(model(ids, mask, types).logits, expected, rtol=0, atol=1e-5)


def test_a_checkpoint_with_masked_lm_heads_legacy_norms_and_position_ids(make_checkpoint, batch):
    directory, _ = make_checkpoint()
    classifier = load_classifier(directory)

    def as_pretraining(tensors):
        renamed = {}
        for name, tensor in tensors.items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[name] = tensor
        renamed["bert.embeddings.position_ids"] = torch.arange(19)[None]
        renamed["cls.predictions.bias"] = torch.zeros(53)
        renamed["cls.seq_relationship.weight"] = torch.zeros(2, 24)
        return renamed

    rewrite(directory, as_pretraining)
    assert torch.equal(load_classifier(directory)(*batch()).logits, classifier(*batch()).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_fp32(make_checkpoint, dtype):
    directory, _ = make_checkpoint()
    expected = load_classifier(directory).state_dict()
    rewrite(directory, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
    for name, tensor in load_classifier(directory).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].to(dtype).float()), name


def test_a_bare_encoder_gets_a_fresh_head_from_the_seed(make_checkpoint, tmp_path):
    _, theirs = make_checkpoint()
    theirs.bert.save_pretrained(tmp_path / "body")
    model = load_classifier(tmp_path / "body", num_labels=4, seed=7)
    again = load_classifier(tmp_path / "body", num_labels=4, seed=7)
    other = load_classifier(tmp_path / "body", num_labels=4, seed=8)
    assert model.fresh_tensors == ("classifier.weight", "classifier.bias")
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert not torch.equal(model.classifier.weight, other.classifier.weight)
    assert model.classifier.weight.shape == (4, 24)
    assert model.config.id2label == {i: f"LABEL_{i}" for i in range(4)}
    assert (model.classifier.bias == 0).all()
    assert torch.equal(model.pooler.dense.weight, theirs.bert.pooler.dense.weight)


def test_a_missing_pooler_is_fresh(make_checkpoint):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: {name: tensor for name, tensor in t.items() if "pooler" not in name})
    model = load_classifier(directory)
    assert model.fresh_tensors == ("pooler.dense.weight", "pooler.dense.bias")
    assert model.pooler.dense.weight.abs().sum() > 0


def test_another_number_of_labels_starts_a_fresh_head(make_checkpoint):
    directory, _ = make_checkpoint(num_labels=3)
    same, other = load_classifier(directory, num_labels=3), load_classifier(directory, num_labels=2)
    assert same.fresh_tensors == ()
    assert other.fresh_tensors == ("classifier.weight", "classifier.bias")
    assert other.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_labels_of_the_same_number_keep_the_head(make_checkpoint):
    directory, theirs = make_checkpoint(num_labels=2)
    model = load_classifier(directory, id2label=["negative", "positive"])
    assert model.fresh_tensors == ()
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.label2id == {"negative": 0, "positive": 1}
    assert torch.equal(model.classifier.weight, theirs.classifier.weight)


def test_regression_is_one_label(make_checkpoint):
    directory, _ = make_checkpoint(num_labels=2)
    model = load_classifier(directory, num_labels=1, problem_type="regression")
    assert model.config.is_regression
    assert model.classifier.weight.shape == (1, 24)
    assert load_config(make_checkpoint(num_labels=1)[0]).is_regression
    assert not load_config(directory).is_regression


def test_a_multi_label_checkpoint_is_an_encoder_to_start_from(make_checkpoint):
    directory, _ = make_checkpoint(num_labels=3, problem_type="multi_label_classification")
    assert load_classifier(directory).config.is_multilabel
    assert load_classifier(directory, id2label=["a", "b", "c"]).config.is_multilabel
    assert load_classifier(directory, num_labels=2).config.problem_type is None


# Refusals: the weights


def test_missing_tensor(make_checkpoint):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: t.pop("bert.encoder.layer.1.attention.self.key.bias") is None)
    text = refusal(directory)
    assert str(directory / "model.safetensors") in text
    assert "tensor 'bert.encoder.layer.1.attention.self.key.bias' is missing (found 40 tensors of 41)" in text
    assert "shape [24]" in text


def test_half_a_pooler(make_checkpoint):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: t.pop("bert.pooler.dense.weight") is None)
    assert "tensor 'bert.pooler.dense.weight' is missing" in refusal(directory)


@pytest.mark.parametrize("name", ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.output.dense.weight"])
def test_unexpected_shape(make_checkpoint, name):
    directory, theirs = make_checkpoint()
    right = list(theirs.state_dict()[name].shape)
    rewrite(directory, lambda t: t | {name: torch.zeros(5, 6)})
    text = refusal(directory)
    assert f"model.safetensors: tensor {name!r} is floating point [5, 6]" in text
    assert f"config.json implies floating point {right}" in text


def test_integer_weights(make_checkpoint):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: t | {"bert.pooler.dense.bias": torch.zeros(24, dtype=torch.int8)})
    assert "tensor 'bert.pooler.dense.bias' is torch.int8 [24]" in refusal(directory)


@pytest.mark.parametrize(
    "name",
    ["bert.encoder.layer.2.output.dense.bias", "bert.encoder.layer.0.adapter.weight", "bert.embeddings.extra.weight"],
)
def test_a_body_tensor_without_a_place(make_checkpoint, name):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: t | {name: torch.zeros(24)})
    assert f"tensor {name!r} has no place in the encoder that config.json describes (2 layers" in refusal(directory)


def test_the_same_tensor_under_two_names(make_checkpoint):
    directory, _ = make_checkpoint()
    rewrite(directory, lambda t: t | {"pooler.dense.bias": torch.zeros(24)})
    text = refusal(directory)
    assert "'bert.pooler.dense.bias'" in text
    assert "'pooler.dense.bias'" in text
    assert "are the same parameter; remove one" in text


class Attack:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused_and_not_run(make_checkpoint, capsys):
    directory, _ = make_checkpoint()
    (directory / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Attack()}, directory / "pytorch_model.bin")
    assert "pytorch_model.bin: cannot be read as plain tensors" in refusal(directory)
    assert "code ran" not in capsys.readouterr().out


def test_a_bin_of_something_else(make_checkpoint):
    directory, _ = make_checkpoint()
    (directory / "model.safetensors").unlink()
    torch.save({"step": 3}, directory / "pytorch_model.bin")
    assert "pytorch_model.bin: not a state dict of tensors" in refusal(directory)


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_truncated_weights(make_checkpoint, keep):
    directory, _ = make_checkpoint()
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors: cannot be read as plain tensors" in refusal(directory)
    file.rename(directory / "pytorch_model.bin")
    assert "pytorch_model.bin: cannot be read as plain tensors" in refusal(directory)


def test_no_weights_no_config_no_directory(make_checkpoint, tmp_path):
    directory, _ = make_checkpoint()
    (directory / "model.safetensors").unlink()
    assert "no weights; expected one of model.safetensors, model.safetensors.index.json, pytorch_model" in (
        refusal(directory)
    )
    (directory / "config.json").unlink()
    assert "no config.json" in refusal(directory)
    assert "not a directory; give a local Hugging Face checkpoint directory" in refusal("bert-base-uncased")
    assert "not a directory" in refusal("bert-base-uncased", num_labels=2)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/hostname", "absent.safetensors", "."])
def test_a_shard_outside_the_directory(make_checkpoint, shard):
    directory, _ = make_checkpoint()
    (directory / "model.safetensors").rename(directory.parent / "model.safetensors")
    index = {"weight_map": {"bert.pooler.dense.bias": shard}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"shard {shard!r} is not a file of" in refusal(directory)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map(make_checkpoint, index):
    directory, _ = make_checkpoint()
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no 'weight_map'" in refusal(directory)


# Refusals: the configuration


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"model_type": "albert"}, "model_type is 'albert'; bitpress runs 'bert', "),
        ({"model_type": "deberta-v2"}, "model_type is 'deberta-v2'; bitpress runs 'bert', "),
        ({"model_type": "modernbert"}, "model_type is 'modernbert'; bitpress runs 'bert', "),
        ({"model_type": None}, "model_type is None; bitpress runs 'bert', "),
        ({"model_type": ["bert"]}, "model_type is ['bert']; bitpress runs 'bert', "),
        ({"is_decoder": True}, "is_decoder is True; bitpress runs encoders"),
        ({"add_cross_attention": True}, "add_cross_attention is True; bitpress runs encoders"),
        (
            {"quantization_config": {"quant_method": "bitpress"}},
            "quantization_config is present (quant_method 'bitpress')",
        ),
        ({"quantization_config": 8}, "quantization_config is present (quant_method None)"),
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu'; bitpress runs 'gelu', 'gelu_10', "),
        ({"head": "mlp"}, "head is 'mlp'; bitpress runs 'linear', 'relu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act is ['gelu']; bitpress runs 'gelu', "),
        (
            {"position_embedding_type": "rotary"},
            "position_embedding_type is 'rotary'; bitpress runs 'absolute', 'relative_key', 'relative_key_query'",
        ),
        ({"problem_type": "ranking"}, "problem_type is 'ranking'; bitpress runs 'single_label_classification', 'mult"),
        ({"problem_type": "regression"}, "problem_type is 'regression' with 2 label(s)"),
        ({"hidden_size": "24"}, "hidden_size is '24'; it must be a positive integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a positive integer"),
        ({"vocab_size": True}, "vocab_size is True; it must be a positive integer"),
        ({"num_attention_heads": 5}, "hidden_size 24 is not a multiple of num_attention_heads 5"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob is 1; it must be a number in [0, 1)"),
        ({"classifier_dropout": -0.1}, "classifier_dropout is -0.1; it must be a number in [0, 1)"),
        ({"layer_norm_eps": 0}, "layer_norm_eps is 0; it must be a positive number"),
        ({"pad_token_id": 53}, "pad_token_id is 53; it must be null or an id below vocab_size 53"),
        ({"id2label": {"0": "a", "2": "b"}}, "it must name the ids 0, 1, … without a gap"),
        ({"id2label": {}}, "it must name the ids 0, 1, … without a gap"),
        ({"id2label": {"x": "a"}}, "it must name the ids 0, 1, … without a gap"),
        ({"id2label": 3}, "it must name the ids 0, 1, … without a gap"),
        ({"id2label": {"0": "a", "1": "a"}}, "two ids have the same label"),
        ({"id2label": None, "num_labels": 0}, "num_labels is 0; it must be an integer of at least 1"),
    ],
)
def test_refused_by_name(make_checkpoint, values, text):
    directory, _ = make_checkpoint()
    edit_config(directory, **values)
    assert text in refusal(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_config_that_is_no_json_object(make_checkpoint, content):
    directory, _ = make_checkpoint()
    (directory / "config.json").write_bytes(content)
    assert re.search(r"config\.json: (not JSON|holds a list; expected a JSON object)", refusal(directory))


def test_labels_that_contradict_each_other(make_checkpoint):
    directory, _ = make_checkpoint()
    assert "num_labels is 3 but id2label names 2 labels" in refusal(directory, num_labels=3, id2label=["a", "b"])
    assert "problem_type is 'regression' with 2 label(s)" in refusal(directory, problem_type="regression")
    assert "num_labels is 0" in refusal(directory, num_labels=0)


def test_a_text_longer_than_the_positions(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0])
    with pytest.raises(UnsupportedModelError, match=r"a text of 20 tokens; this model has 19 positions. Set"):
        model(*batch(1, 20))


def test_config_survives_the_round_trip(make_checkpoint):
    directory, _ = make_checkpoint(id2label={0: "no", 1: "maybe", 2: "yes"}, hidden_act="relu", pad_token_id=None)
    edit_config(directory, head="relu", my_key={"kept": 1}, _name_or_path="/somewhere", dtype="float16")
    config = load_config(directory)
    written = config.to_hf()
    assert EncoderConfig.from_hf(json.loads(json.dumps(written))) == config
    assert written["my_key"] == {"kept": 1}
    assert written["head"] == config.head == "relu"
    assert written["dtype"] == "float32"
    assert written["label2id"] == {"no": 0, "maybe": 1, "yes": 2}
    assert "_name_or_path" not in written
    assert "num_labels" not in written


def test_an_empty_config_has_the_defaults_of_transformers():
    ours, theirs = EncoderConfig.from_hf({"model_type": "bert"}), transformers.BertConfig()
    for name in EncoderConfig.__dataclass_fields__:
        if name in (*ours.family.config, "id2label") and name != "position_embedding_type":
            assert getattr(ours, name) == getattr(theirs, name), name


# Writing


@pytest.mark.parametrize("labels", [["no", "yes"], ["a", "b", "c"], ["score"]])
def test_what_is_saved_loads_in_transformers(make_checkpoint, batch, tmp_path, labels):
    model = load_classifier(make_checkpoint()[0], id2label=labels, seed=4)
    save_classifier(model, tmp_path / "out")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert type(theirs).__name__ == "BertForSequenceClassification"
    assert theirs.dtype == torch.float32
    assert theirs.config.id2label == dict(enumerate(labels))
    ids, mask, types = batch(padded=True, pairs=True)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        torch.testing.assert_close(model(ids, mask, types).logits, expected, rtol=0, atol=1e-5)


def test_what_is_saved_loads_back_bit_for_bit(make_checkpoint, tmp_path):
    model = load_classifier(make_checkpoint()[0], num_labels=5)
    save_classifier(model, tmp_path / "one")
    again = load_classifier(tmp_path / "one")
    assert again.config == model.config
    assert again.fresh_tensors == ()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    save_classifier(again, tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_relative_positions_are_saved_with_their_tables(tmp_path):
    config = EncoderConfig.from_hf(
        {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"intermediate_size": 8, "max_position_embeddings": 6, "position_embedding_type": "relative_key"}
    )
    model = SequenceClassifier(config).eval()
    save_classifier(model, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["bert.encoder.layer.0.attention.self.distance_embedding.weight"].shape == (11, 4)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(load_classifier(tmp_path / "out")(ids).logits, model(ids).logits)


def test_quantizers_are_not_saved(make_checkpoint, tmp_path):
    model = load_classifier(make_checkpoint()[0])
    observer = torch.nn.Linear(2, 2)
    observer.register_buffer("running_min", torch.zeros(1))
    model.layers[0].ffn.input.quantizer = observer
    model.layers[0].ffn.output.weight_quantizer = torch.nn.Linear(2, 2)
    save_classifier(model, tmp_path / "out")
    assert sorted(load_file(tmp_path / "out" / "model.safetensors")) == sorted(
        to_hf_name(name) for name in load_classifier(tmp_path / "out").state_dict()
    )


def test_the_tokenizer_travels(make_checkpoint, tmp_path):
    source, _ = make_checkpoint()
    files = {
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{ }",
        "special_tokens_map.json": b"[]",
        "vocab.txt": b"a",
    }
    for name, content in files.items():
        (source / name).write_bytes(content)
    (source / "secret.txt").write_text("stays")
    save_classifier(load_classifier(source), tmp_path / "out", tokenizer_from=source)
    found = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert set(found) == {*files, "config.json", "model.safetensors"}
    assert {name: found[name] for name in files} == files
    # In place: a checkpoint may be its own tokenizer's source.
    save_classifier(load_classifier(source), source, tokenizer_from=source)
    assert (source / "vocab.txt").read_bytes() == b"a"
    assert (source / "secret.txt").exists()


def test_no_tokenizer_where_one_was_promised(make_checkpoint, tmp_path):
    source, _ = make_checkpoint()
    with pytest.raises(
        UnsupportedModelError, match=r"no tokenizer; expected tokenizer\.json, vocab\.txt, or vocab\.json and"
    ):
        save_classifier(load_classifier(source), tmp_path / "out", tokenizer_from=source)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_saving_over_a_file_is_refused(make_checkpoint, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UnsupportedModelError, match="exists and is not a directory"):
        save_classifier(load_classifier(make_checkpoint()[0]), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_save_that_fails_leaves_what_was_there(make_checkpoint, tmp_path, monkeypatch, exists):
    model = load_classifier(make_checkpoint()[0])
    target = tmp_path / "deep" / "out"
    if exists:
        save_classifier(model, target)
        before = {file.name: file.read_bytes() for file in target.iterdir()}
    with torch.no_grad():
        model.classifier.bias.add_(1.0)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("bitpress.encoder.checkpoint._publish", fail)
    with pytest.raises(OSError, match="disk full"):
        save_classifier(model, target)
    assert target.exists() == exists
    if exists:
        assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert [file for file in target.parent.iterdir() if file != target] == []


def test_what_a_killed_save_left_is_cleared(make_checkpoint, tmp_path):
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "half.bin").write_bytes(b"x")
    save_classifier(load_classifier(make_checkpoint()[0]), tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert not (tmp_path / ".out.tmp").exists()


def test_a_checkpoint_may_be_removed_once_it_is_loaded(make_checkpoint, batch):
    directory, _ = make_checkpoint()
    model = load_classifier(directory)
    expected = model(*batch()).logits
    (directory / "model.safetensors").write_bytes(b"")
    shutil.rmtree(directory)
    assert torch.equal(model(*batch()).logits, expected)

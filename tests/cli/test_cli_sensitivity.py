"""``bitpress sensitivity`` from the command line, on a random checkpoint. Oracles: the files it wrote, and numbers
written out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import labelled_file
from typer.testing import CliRunner

from bitpress.cli import app
from bitpress.cli.sensitivity import print_result

FEW = ("--samples", 3, "--share", 0.3, "--max-products", 12, "--trace-probes", 3)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["sensitivity", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_table_json_and_files(checkpoint: Path, tmp_path: Path) -> None:
    train, dev = labelled_file(tmp_path / "train.tsv", 30), labelled_file(tmp_path / "dev.tsv", 8)
    common = (checkpoint, "--train", train, "--dev", dev, "--out", tmp_path / "sens", *FEW, "--bits", 4, "--bits", 2)
    code, out, err = run(*common, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["settings"] | {"samples": 3, "max_products": 12, "probes": 3, "share": 0.3} == document["settings"]
    assert {drop["bits"] for drop in document["measured"]["drops"]} == {4, 2}
    stored = json.loads((tmp_path / "sens" / "sensitivity.json").read_text())
    assert stored["blocks"] == document["blocks"]
    assert all(block["products"] <= 12 for block in stored["blocks"])
    code, out, err = run(*common, "--landscape", "layers.0", "--grid", 3, "--compare", 3)
    assert code == 0
    table = [line.split() for line in out.splitlines() if line.strip().startswith("layers.")]
    assert [line[0] for line in table] == document["ranking"]
    assert "loss at 2 bits" in out
    assert "rank agreement at 4 bits (Spearman) of trace·error" in err
    assert "loss around layers.0: eigenvalues" in err
    assert "attention of 3 bits, KL by layer in nats: " in err
    assert all(Path(file).is_file() for file in err.rsplit("written: ", 1)[1].strip().split(", "))
    quiet = run(*common, "--quiet")
    assert (quiet[0], quiet[2]) == (0, "")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--by", "head"), "by is 'head'; allowed: layer, module, matrix"),
        (("--landscape", "layer0"), "there is no block 'layer0'; allowed: layers.0, layers.1"),
        (("--max-products", 5), "10 samples of at least 2 iterations and 7 probes need 27"),
        (("--bits", 5), "bits is 5; allowed: 8, 4, 3, 2"),
        (("--measure",), "needs labelled data to score on; give --dev"),
        (("--compare", "nowhere"), "nowhere"),
        (("--grid", 10), "grid is 10; allowed: an odd integer"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    options: tuple[object, ...], text: str, checkpoint: Path, tmp_path: Path
) -> None:
    train = labelled_file(tmp_path / "train.tsv")
    code, out, err = run(checkpoint, "--train", train, "--out", tmp_path / "sens", *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert not (tmp_path / "sens").exists()


def test_the_table_has_the_highest_omega_first_and_says_what_is_doubtful(capsys: pytest.CaptureFixture[str]) -> None:
    def block(name: str, omega: float, values: list[float]) -> dict[str, Any]:
        negative = sum(value < 0 for value in values)
        counts = {"positive": len(values) - negative, "negative": negative, "converged": 1, "products": 9}
        numbers = {"omega": omega, "omega_error": None, "trace": 12.3456, "trace_error": 0.25, "size": 1234}
        return {"name": name, "samples": [{"eigenvalue": value} for value in values], **numbers, **counts}

    result = {
        "settings": {"samples": 2},
        "blocks": [block("layers.0", 2.0, [1.0, 3.0]), block("layers.1", 8.0, [-9.0, -7.0])],
        "ranking": ["layers.1", "layers.0"],
        "texts": 1500,
        "tokens": 20000,
        "seconds": 61.0,
        "measured": None,
        "landscape": None,
        "attention_kl": None,
        "files": ["sens/sensitivity.json"],
    }
    print_result(result, quiet=False)
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("layers.")]
    assert rows[0] == ["layers.1", "8", "█" * 16, "-8", "0+", "2−", "12.3", "0.25", "1,234"]
    assert rows[1] == ["layers.0", "2", "█" * 4, "2", "2+", "0−", "12.3", "0.25", "1,234"]
    assert "1,500 texts, 20,000 tokens, 18 Hessian-vector products, 61.00 s; 2 of 4 eigenvalues converged" in err
    assert "2 eigenvalues are negative" in err

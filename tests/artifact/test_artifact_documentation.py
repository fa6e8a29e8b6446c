"""docs/artifact.md names the test of every promise. Oracle: the names of the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs" / "artifact.md").read_text()
PROMISES = {
    name
    for file in HERE.glob("test_artifact_loader_promises_*.py")
    for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
}


def test_every_promise_is_documented_under_the_name_of_its_test() -> None:
    groups = re.findall(r"\*\*\[([^\]]+)\]\*\*", DOCUMENT)
    named = {name for group in groups for name in re.split(r"[,\s]+", group)}
    # This one is about the tests, not about the format.
    assert named == PROMISES - {"every_variant_of_a_valid_artifact_loads"}


def test_other_tests_named_in_the_document_exist() -> None:
    named = re.findall(r"(test_artifact_\w+\.py)(?:::(test_\w+))?", DOCUMENT)
    assert named
    for file, test in named:
        assert f"def {test}(" in (HERE / file).read_text() if test else (HERE / file).exists()

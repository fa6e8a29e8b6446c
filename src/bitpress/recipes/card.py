"""The artifact's README.md: what it is, how it was made, and what was measured on it."""

from __future__ import annotations

from typing import Any

from bitpress.recipes.schema import Recipe


def model_card(
    recipe: Recipe, labels: list[str], teacher: dict[str, Any], artifact: dict[str, Any], asks: bool = False
) -> str:
    """Markdown. ``teacher`` and ``artifact`` are scores as ``summarize`` gives them; the artifact's with its bytes.
    ``asks``: the artifact answers questions."""
    metric = artifact["metric"]
    check = artifact["engine_vs_student"]
    rows = [
        (
            f"{metric}, dev ({artifact['n']} {'questions' if asks else 'texts'})",
            f"{teacher['value']:.4f}",
            f"{artifact['value']:.4f}",
        ),
        ("always giving one answer", f"{teacher['majority']:.4f}", f"{artifact['majority']:.4f}"),
        (
            "bytes of the weights",
            f"{artifact['fp32_bytes']:,} (fp32)",
            f"{artifact['total_bytes']:,} ({artifact['ratio']:.1f}× smaller)",
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    call = 'question="…", context="…"' if asks else '"some text"'
    named = f"\nLabels: {', '.join(labels)}.\n" if labels else ""
    return f"""---
library_name: bitpress
tags: [bitpress, quantized]
---

# A BERT encoder compressed with bitpress

Recipe `{recipe.name}`: {recipe.summary}.
{recipe.paper}.
{named}
| | teacher | this artifact |
|---|---|---|
{table}

The teacher was measured in fp32 by PyTorch, the artifact on its packed weights by the engine that runs it. Engine and
fake-quantized student (in {check["arithmetic"]}'s arithmetic) gave the same bits for {check["identical_logits"]} of
{check["n"]} {check["unit"]} and another prediction for {check["different_predictions"]}; logits differed by at most
{check["max_logit_difference"]:.2g}. `provenance.json` has the whole configuration.

```python
import bitpress

model = bitpress.load("this directory")
model({call})
```
"""

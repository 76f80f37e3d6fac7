"""The ``gramcore`` command.

Each module of this package adds its commands to :data:`app` when imported; modules import the families they need
inside the command, so ``gramcore --help`` stays fast.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Annotated

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="gramcore",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from gramcore import __version__

        typer.echo(f"gramcore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Native cores for language-model engineers. Add --debug to any command for a traceback."""


#: What the extra ``hf`` installs.
_HF_MODULES = ("torch", "transformers", "safetensors", "gguf", "tokenizers")
#: What a user can cause: reported in one sentence with exit status 2. Anything else is our bug and shows a traceback.
_USER_ERRORS = (ValueError, TypeError, IndexError, KeyError, OSError, ImportError, RuntimeError)


def main(argv: list[str] | None = None) -> None:
    """Entry point: run a command; user errors become one line on stderr and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    try:
        app(args=arguments, prog_name="gramcore", standalone_mode=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the reader went away; nothing is left to say
        sys.exit(141)
    except _USER_ERRORS as error:
        if debug:
            raise
        typer.echo(f"error: {_sentence(error) or type(error).__name__}", err=True)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    """What an error says, without quotes around keys and numbers of system errors."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name in _HF_MODULES:
        return f"{error.name} must be installed for this, got none; pip install 'gramcore[hf]'"
    return str(error)

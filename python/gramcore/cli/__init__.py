"""The ``gramcore`` command.

Each module of this package adds its commands to :data:`app` when imported; modules import the families they need
inside the command, so ``gramcore --help`` stays fast.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="gramcore",
    help="Native cores for language-model engineers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Native cores for language-model engineers. Add --debug to any command for a traceback."""


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
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        typer.echo(f"error: {text or type(error).__name__}", err=True)
        sys.exit(2)

"""The commands of `torana`. Each is imported when it is called, so that `--version` stays instant."""

import importlib
import logging
import os
import sys
from contextlib import suppress
from typing import Any

import click

from torana import __version__
from torana.cli.plain_text import plain_output
from torana.errors import BadCatalogue, BadSetting

COMMANDS = {
    "serve": "torana.cli.serve:serve",
    "token": "torana.cli.token:token",
    "access": "torana.cli.access:access",
    "keys": "torana.cli.keys:keys",
    "limits": "torana.cli.limits:limits",
    "jws": "torana.cli.jws:jws",
    "check": "torana.cli.check:check",
    "docs": "torana.cli.docs:docs",
    "prompts": "torana.cli.prompts:prompts",
    "models": "torana.cli.models:models",
    "explain": "torana.cli.explain:explain",
    "error": "torana.cli.error:error",
    "usage": "torana.cli.usage:usage",
}


class LazyGroup(click.Group):
    """Finds a command's module only when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """What the machine refuses, such as a full disk behind stdout, is a failure at run time: one line, exit 1.

        What settings or the catalogue have wrong is told with exit 2, wherever it is found.
        """
        try:
            with plain_output():
                return super().main(*args, **kwargs)
        except (BadSetting, BadCatalogue) as error:
            click.echo(str(error), err=True)
            sys.exit(2)
        except OSError as error:
            told = ": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error))))
            with suppress(OSError):
                click.echo(f"Error: {told}", err=True)
            # What could not be written would be tried once more at the end.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 lives as long as the process
            sys.exit(1)


def _is_told_nowhere_else(record: logging.LogRecord) -> bool:
    """Commands tell what they find; of the rooms' own lines errors alone have no other place."""
    return record.levelno >= logging.ERROR or not record.name.startswith("torana")


@click.group(cls=LazyGroup)
@click.version_option(__version__, message="torana %(version)s")
def main() -> None:
    """An AI gateway. `torana serve` serves; `torana COMMAND --help` tells the rest."""
    # `serve` has its log.
    if logging.lastResort is not None:
        logging.lastResort.addFilter(_is_told_nowhere_else)

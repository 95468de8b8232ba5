"""[shell] What the commands of ``mediaproxy`` have in common: options, errors, JSON."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mediaproxy.cli.words import plain
from mediaproxy.config import Config, ConfigError, load

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The server's configuration file (TOML); without it, the defaults; none is looked for."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for other programs.")]


def fail(text: str) -> NoReturn:
    """End with status 1 and these lines on standard error."""
    for line in text.split("\n"):
        sys.stderr.write(f"mediaproxy: {line}\n")
    raise typer.Exit(1)


def print_json(value: Any) -> None:
    """The value on standard output."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def config_of(path: Path | None) -> Config:
    """The configuration of a file; None: the default. Ends the program if it is not good."""
    if path is None:
        return Config()
    try:
        return load(path)
    except ConfigError as error:
        fail(str(error))

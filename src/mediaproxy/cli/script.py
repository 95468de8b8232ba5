"""[shell] ``mediaproxy script``: the default routing script, and what is wrong with one of your own."""

from pathlib import Path
from typing import Annotated

import typer

from mediaproxy.cli.common import ConfigOption, config_of, fail


def script_command(
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Only say what is wrong with the script in FILE.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print the default routing script, which is also the example, or check one of your own."""
    # Here and not above: no other command needs it, and they shall be quick.
    from mediaproxy.edge.script.loading import Script, ScriptError, default_text

    if check is None:
        typer.echo(default_text(), nl=False)
        return
    settings = config_of(config).edge
    try:
        Script.load(check.read_bytes(), str(check), settings)
    except OSError as error:
        fail(f"{check}: cannot be read: {error.strerror}")
    except ScriptError as error:
        fail(str(error))
    typer.echo(f"{check}: good")

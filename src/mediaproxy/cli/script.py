"""[shell] ``mediaproxy script``: the default routing script, and what is wrong with one of your own."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from mediaproxy.cli.common import ConfigOption, config_of, fail
from mediaproxy.edge.settings import EdgeSettings


def mistakes(settings: EdgeSettings) -> list[str]:
    """What is wrong with the script of a configuration, a line each."""
    from mediaproxy.edge.script.loading import ScriptError
    from mediaproxy.edge.script.source import ScriptFile

    try:
        ScriptFile(settings, _ignore, _ignore).load(0.0)
    except ScriptError as error:
        return str(error).splitlines()
    return []


def script_command(
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Only say what is wrong with the script in FILE.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print the default routing script, which is also the example, or check one of your own."""
    # Here and not above, as everything else of the script: no other command needs it, and they shall be quick.
    from mediaproxy.edge.script.loading import default_text

    if check is None:
        typer.echo(default_text(), nl=False)
        return
    found = mistakes(replace(config_of(config).edge, script=str(check)))
    if found:
        fail("\n".join(found))
    typer.echo(f"{check}: good")


def _ignore(line: str) -> None:
    """It is told otherwise."""

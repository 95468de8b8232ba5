"""[shell] ``mediaproxy doctor``: what this host lets a relay do, and why not."""

import typer
from rich.console import Console
from rich.text import Text

from mediaproxy.cli.common import ConfigOption, JsonOption, config_of, print_json
from mediaproxy.doctor import Finding, Grade, Report, examine
from mediaproxy.edge.interfaces import host_addresses
from mediaproxy.server.places import relay_of_host

_STYLES = {Grade.GOOD: "green", Grade.NOTE: "yellow", Grade.BAD: "bold red"}


def doctor_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what this host lets a relay do, and why not: kernel, privileges, ports, addresses. Needs no running server.

    Exit status 1: something keeps the relay from what its settings ask for.
    """
    report = examine(relay_of_host(config_of(config).relay, host_addresses()))
    if as_json:
        print_json(report)
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        for line in page(report):
            console.print(line)
    raise typer.Exit(int(report.bad))


def page(report: Report) -> list[Text]:
    """The findings, one or two lines each, and the conclusion."""
    width = max(len(finding.what) for finding in report.findings)
    lines = [line for finding in report.findings for line in _lines(finding, width)]
    return [*lines, Text(), Text(report.conclusion, "bold")]


def _lines(finding: Finding, width: int) -> list[Text]:
    grade = finding.grade
    lines = [Text.assemble((f"{grade.value:<4}", _STYLES[grade]), f"  {finding.what:<{width}}  {finding.found}")]
    if finding.advice:
        lines.append(Text(f"{'':<{width + 8}}→ {finding.advice}", "dim"))
    return lines

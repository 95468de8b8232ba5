"""[shell] ``mediaproxy doctor``: what this host lets a relay do, and why not."""

import typer
from rich.console import Console
from rich.text import Text

from mediaproxy.admin import SOCKET, AdminError, Command, ask
from mediaproxy.cli.common import ConfigOption, JsonOption, config_of, print_json
from mediaproxy.cli.words import plain
from mediaproxy.doctor import Finding, Grade, Report, examine
from mediaproxy.edge.interfaces import host_addresses
from mediaproxy.server.answers import Status
from mediaproxy.server.places import Places, instance_name, relay_of_host

_STYLES = {Grade.GOOD: "green", Grade.NOTE: "yellow", Grade.BAD: "bold red"}


def doctor_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say what this host lets a relay do, and why not: kernel, privileges, ports, addresses. Needs no running server.

    Exit status 1: something keeps the relay from what its settings ask for.
    """
    settings = config_of(config)
    places = Places.of(settings)
    report = examine(relay_of_host(settings.relay, host_addresses()), instance_name(settings.relay, places))
    status = _running(places)
    if as_json:
        print_json(plain(report) | {"running": status})
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        for line in page(report, status):
            console.print(line)
    raise typer.Exit(int(report.bad))


def _running(places: Places) -> Status | None:
    """What a server with this configuration says of itself, if one runs."""
    try:
        return ask(places.runtime_dir / SOCKET, Command(command="status"), Status)
    except AdminError:
        return None


def page(report: Report, status: Status | None = None) -> list[Text]:
    """The findings, one or two lines each, the conclusion, and what the running server does."""
    width = max(len(finding.what) for finding in report.findings)
    lines = [line for finding in report.findings for line in _lines(finding, width)]
    lines += [Text(), Text(report.conclusion, "bold")]
    if status is not None and status.plane:
        where = {"kernel": "in the kernel", "native": "in user space, in C"}.get(status.plane, "in user space")
        lines.append(Text(f"a server runs (process {status.pid}), its media is relayed {where}"))
        lines += [Text(f"  {count:>12}  {name}") for name, count in sorted(status.packets.items())]
    return lines


def _lines(finding: Finding, width: int) -> list[Text]:
    grade = finding.grade
    lines = [Text.assemble((f"{grade.value:<4}", _STYLES[grade]), f"  {finding.what:<{width}}  {finding.found}")]
    if finding.advice:
        lines.append(Text(f"{'':<{width + 8}}→ {finding.advice}", "dim"))
    return lines

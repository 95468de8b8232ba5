"""[shell] The commands of ``mediaproxy``.

Arguments come in; text for people (or JSON) goes to standard output, errors as one line to standard error with exit
status 1. It must never show a traceback for what a user or a machine did, and decides nothing about calls.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mediaproxy import __version__
from mediaproxy.accounting import Filter
from mediaproxy.admin import SOCKET, AdminError, Command, ask
from mediaproxy.cli import show
from mediaproxy.cli.common import ConfigOption, JsonOption, config_of, fail, print_json
from mediaproxy.cli.doctor import doctor_command
from mediaproxy.cli.doors import show_doors
from mediaproxy.cli.explain import explain_command
from mediaproxy.cli.script import mistakes, script_command
from mediaproxy.cli.words import plain, several, shown
from mediaproxy.config import Config, LogFormat, clients_of, default_text
from mediaproxy.edge.domains import refusals
from mediaproxy.edge.interfaces import listeners_of
from mediaproxy.records import RecordReader
from mediaproxy.server.answers import Calls, DoorsShown, Ended, Registrations, Relays, Status
from mediaproxy.server.places import Places

app = typer.Typer(
    help="Far-end NAT traversal for SIP: phones behind NAT hear each other.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INDENT = "      "
T = TypeVar("T")

SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", help="The server's control socket; without it, that of --config, of this user or of root."
    ),
]


def main() -> None:
    """The console script."""
    app()


def _console() -> Console:
    # A pipe or a file gets no colours, and whole lines.
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def _print(lines: Iterable[Text]) -> None:
    console = _console()
    for line in _fitted(lines, console):
        console.print(line)


def _fitted(lines: Iterable[Text], console: Console) -> Iterable[Text]:
    """The lines as a terminal shows them: what is longer than it is wide goes on in the next line, set in, so that
    nothing is cut and columns stay readable."""
    for line in lines:
        if not console.is_terminal or line.cell_len <= console.width:
            yield line
            continue
        first, *rest = line.wrap(console, max(20, console.width - len(_INDENT)))
        yield first
        yield from (Text.assemble(_INDENT, piece) for piece in rest)


def _ask(command: Command, result: type[T], socket: Path | None, config: Path | None) -> T:
    try:
        return ask(_socket(socket, config), command, result)
    except AdminError as error:
        fail(str(error))


def _socket(socket: Path | None, config: Path | None) -> Path:
    """The control socket: as told, else as the configuration says, else where this user's server or root's has it."""
    if socket is not None:
        return socket
    own = Places.of(config_of(config)).runtime_dir / SOCKET
    system = Places.SYSTEM_RUNTIME / SOCKET
    return system if config is None and not own.exists() and system.exists() else own


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mediaproxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: ConfigOption = None,
    script: Annotated[
        Path | None, typer.Option("--script", metavar="FILE", help="The routing script (docs/script.md).")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Serve public addresses without accounts: everybody can register and call.")
    ] = False,
    log_format: Annotated[LogFormat | None, typer.Option(help="How log lines look.")] = None,
) -> None:
    """Run SIP proxy, registrar, doors for other SIP servers and media relay in one process, until SIGTERM or Ctrl-C."""
    # Here and not above: no other command needs the server's code, and they shall be quick.
    from mediaproxy.server.process import StartError, serve

    try:
        status = serve(config_of(config), script=script, open_server=open_, log_format=log_format)
    except StartError as error:
        fail(str(error))
    raise typer.Exit(status)


@app.command()
def relay(
    config: ConfigOption = None,
    release: Annotated[
        bool,
        typer.Option(
            "--release", help="Only take out of the kernel what a relay that has ended left there; its streams end."
        ),
    ] = False,
    log_format: Annotated[LogFormat | None, typer.Option(help="How log lines look.")] = None,
) -> None:
    """Run a media relay alone, for the servers whose configuration names it, until SIGTERM or Ctrl-C."""
    if release:
        _release(config_of(config))
        return
    from mediaproxy.server.process import StartError, serve_relay

    try:
        status = serve_relay(config_of(config), log_format=log_format)
    except StartError as error:
        fail(str(error))
    raise typer.Exit(status)


def _release(config: Config) -> None:
    from mediaproxy.server.planes import FastPathUnavailable, release_kernel

    try:
        released = release_kernel(config.relay, Places.of(config))
    except FastPathUnavailable as error:
        fail(str(error))
    except OSError as error:
        fail(f"what is in the kernel cannot be taken out: {error.strerror}")
    if released is None:
        typer.echo("nothing is in the kernel")
    else:
        typer.echo(f"taken out of the kernel: {several(released, 'program')}, and what was pinned")


@app.command("calls")
def calls_(
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show them anew every second, until Ctrl-C.")] = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the calls: who, where, since when, packets both ways, and why one has no audio."""

    def current() -> Calls:
        return _ask(Command(command="calls"), Calls, socket, config)

    if as_json:
        print_json(current().calls)
    elif watch:
        _watch(lambda: show.calls((now := current()).calls, now.now, now.why_not_kernel))
    else:
        now = current()
        _print(show.calls(now.calls, now.now, now.why_not_kernel))


def _watch(page: Callable[[], list[Text]]) -> None:
    console = _console()
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        try:
            while True:
                live.update(Group(*_fitted(page(), console)), refresh=True)
                time.sleep(1.0)
        except KeyboardInterrupt:
            return


@app.command()
def end(
    call_id: Annotated[str, typer.Argument(metavar="CALL-ID", help="As `mediaproxy calls` shows it.")],
    as_json: JsonOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """End a call: its media stops, its record is written, its phones are told to hang up."""
    done = _ask(Command(command="end", call_id=_latin1(call_id)), Ended, socket, config)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"ended {shown(done.ended)}: media ended; {shown(str(done.phones))}")


def _latin1(text: str) -> str:
    """An argument of the command line as peers' text is kept: a character per byte."""
    return os.fsencode(text).decode("latin-1")


@app.command()
def registrations(as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show who is registered, and how each phone can be reached."""
    answer = _ask(Command(command="registrations"), Registrations, socket, config)
    if as_json:
        print_json([plain(binding) | {"ping": ping} for binding, ping in answer.pinged])
    else:
        _print(show.registrations(answer.pinged, answer.now))


@app.command()
def relays(as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show the relays that calls may go to, and which of them do not answer."""
    answer = _ask(Command(command="relays"), Relays, socket, config)
    if as_json:
        print_json(answer.relays)
    else:
        _print(show.relays(answer.relays))


@app.command()
def doors(as_json: JsonOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show the sockets on which SIP servers ask in the words of another protocol, and what they have asked."""
    answer = _ask(Command(command="doors"), DoorsShown, socket, config)
    if as_json:
        print_json(answer)
    else:
        _print(show_doors(answer))


@app.command("records")
def records_(
    as_json: JsonOption = False,
    last: Annotated[int, typer.Option("--last", min=0, metavar="N", help="Only the last N; 0: all.")] = 0,
    call_id: Annotated[str, typer.Option("--call-id", help="Only of this call.")] = "",
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the calls that have ended. Needs no running server."""
    path = _records(socket, config)
    try:
        found = list(RecordReader(path).read(Filter(call_id=_latin1(call_id)), last=last or None))
    except OSError as error:
        fail(f"{path}: cannot be read: {error.strerror}; is that where the server writes them (--config, --socket)?")
    if as_json:
        print_json(found)
    else:
        _print(show.records(found))


def _records(socket: Path | None, config: Path | None) -> Path:
    """The file of records: as the configuration says, else as a running server says, else the default."""
    if config is None:
        try:
            return Path(ask(_socket(socket, None), Command(command="status"), Status).records)
        except AdminError as error:
            if socket is not None:
                fail(str(error))
    return Places.of(config_of(config)).records


@app.command("config")
def config_(
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Only say what is wrong with FILE.")
    ] = None,
) -> None:
    """Print the commented default configuration, or check a file."""
    if check is None:
        typer.echo(default_text(), nl=False)
        return
    from mediaproxy.cli.certificates import unusable

    whole = config_of(check)
    settings = whole.edge
    wrong = [f"{check}: {line}" for line in unusable(whole)]
    if settings.enabled:
        wrong += [f"{check}: {danger}" for danger in refusals(settings, listeners_of(settings))]
        clients_of(settings, wrong.append)
        wrong += mistakes(settings)
    if wrong:
        fail("\n".join(wrong))
    typer.echo(f"{check}: good")


app.command("explain")(explain_command)
app.command("script")(script_command)
app.command("doctor")(doctor_command)

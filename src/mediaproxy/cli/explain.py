"""[shell] ``mediaproxy explain``: what the functions would do to one captured message.

A file and options come in; a page for people, or one JSON object, goes to standard output.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mediaproxy.cli.common import ConfigOption, JsonOption, config_of, fail, print_json
from mediaproxy.cli.words import shown
from mediaproxy.config import clients_of
from mediaproxy.edge.media import policy_of
from mediaproxy.edge.settings import Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.explain import Explanation, RelayAnswer, RelayError, explain
from mediaproxy.module import ModuleError
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, parse

_LONGEST = 1_048_576
"Bytes of a message that is explained: as many as `limits.message` may allow."

FileArgument = Annotated[Path, typer.Argument(help="One SIP message, as captured; - reads standard input.")]
SourceOption = Annotated[str, typer.Option(metavar="IP:PORT", help="Where it came from.")]
TransportOption = Annotated[Transport, typer.Option(help="How it came.")]
LocalOption = Annotated[str, typer.Option(metavar="IP:PORT", help="The server's socket that it came to.")]
TestsOption = Annotated[
    str | None,
    typer.Option(metavar="N", help="The tests of client_nat_test, a sum of 1, 2 and 4; else 7 or --config's."),
]
RelayOption = Annotated[
    str | None,
    typer.Option(
        metavar="'IP PORT...'",
        help="What the relay answers: its address, then one port per m= line, 0 where the line's port is 0.",
    ),
]
IceOption = Annotated[IcePolicy | None, typer.Option(help="What becomes of ICE in the SDP; else keep or --config's.")]


def explain_command(  # noqa: PLR0913 - the options of a command
    file: FileArgument,
    source: SourceOption,
    transport: TransportOption = Transport.UDP,
    local: LocalOption = "0.0.0.0:5060",
    tests: TestsOption = None,
    relay: RelayOption = None,
    ice: IceOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Say what the server's functions would do to one captured message, and why.

    fix_contact and use_media_proxy are applied whatever the tests say.
    """
    try:
        arrival = Arrival(Endpoint.parse(source), transport.value, Endpoint.parse(local))
        answer = None if relay is None else RelayAnswer.parse(relay)
    except RelayError as error:
        fail(f"--relay: {error}")
    except ValueError as error:
        fail(str(error))
    try:
        told = explain(_message(file), arrival, _policy(config, ice), tests=tests, relay=answer)
    except RelayError as error:
        fail(f"--relay: {error}")
    except ModuleError as error:
        fail(f"--tests: {error}")
    if as_json:
        print_json(_as_json(told))
    else:
        typer.echo(str(told), nl=False)


def _policy(config: Path | None, ice: IcePolicy | None) -> Policy:
    edge = config_of(config).edge
    clients = clients_of(edge, lambda text: typer.echo(f"mediaproxy: {text}", err=True))
    hosts = None if config is None else frozenset(edge.domains)
    policy = policy_of(edge, hosts, clients.sip, clients.rtp)
    return policy if ice is None else policy.with_ice(ice)


def _message(file: Path) -> Message:
    """What a file, or standard input, holds."""
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as stream:
            data = stream.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise SipError(f"longer than {_LONGEST} bytes; expected one message")
        return parse(data)
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}")
    except SipError as error:
        fail(f"{file}: not a SIP message: {shown(str(error))}")


def _as_json(told: Explanation) -> dict[str, Any]:
    return {
        "tests": {name: verdict.fired for name, verdict in told.tests.items()},
        "client_nat_test": int(told.client_nat_test),
        "fix_contact": {"result": int(told.fix_contact), "contacts": told.message.values("contact")},
        "streams": told.streams,
        "use_media_proxy": int(told.use_media_proxy),
        "message": bytes(told.message).hex(),
        "reasons": {name: verdict.reason for name, verdict in told.tests.items()},
        "nat_uac_test": told.nat_uac_test,
        "phone": told.phone,
        "question": told.plan.request,
        "warnings": told.warnings,
        "chapters": {chapter.title: chapter.lines for chapter in told.chapters},
    }

"""The pure proxy with a routing script of one's own, in virtual time."""

import textwrap
from typing import Any

from mediaproxy.control import EndCause, EndRequest
from mediaproxy.edge.script.loading import Script, ScriptError
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Request, Response
from tests.vproxy import ALICE, BOB, SDP, SETTINGS, World, reply, request

NAME = "routing.py"
ARGUMENTS = {
    "append_hf": '"X-Test: yes"',
    "client_nat_test": '"3"',
    "ice_candidate": '"keep"',
    "isflagset": "1",
    "log": '"here"',
    "nat_test": '"cgn"',
    "nat_uac_test": "19",
    "remove_hf": '"X-Test"',
    "resetflag": "1",
    "setflag": "1",
    "sl_send_reply": "404",
}
"Function -> arguments that it takes; the others need none."


def script(text: str, settings: EdgeSettings = SETTINGS) -> Script:
    """A script, its lines counted from 1."""
    return Script.load(
        textwrap.dedent(text.removeprefix("\n") if text.startswith("\n ") else text).encode(), NAME, settings
    )


def wrong(text: str) -> list[str]:
    """What is said of a script that cannot be loaded, without the name of its file."""
    try:
        script(text)
    except ScriptError as error:
        lines = str(error).splitlines()
        assert all(line.startswith(NAME) for line in lines)
        return [line.removeprefix(NAME).removeprefix(":").strip() for line in lines]
    return []


def scripted(text: str, settings: EdgeSettings = SETTINGS) -> World:
    """A proxy with that script, and a registered bob."""
    world = World(settings)
    world.bind("bob", BOB)
    change(world, text)
    return world


def change(world: World, text: str) -> None:
    """Another script is in force from now on."""
    world.proxy.script.script = script(text, world.directory.settings)


def call(world: World, source: Endpoint = ALICE, **more: Any) -> Request:
    """Alice calls bob."""
    invite = request(body=SDP, **more)
    world.receive(invite, source)
    return invite


def through(world: World, status: int = 200) -> Response:
    """Alice calls bob, who answers; the answer as it comes back."""
    call(world)
    there = world.take(f"INVITE > {BOB.address}")
    world.receive(reply(there, status, body=SDP if status < 300 else b""), BOB)
    return next(out for out in reversed(world.outbox) if str(out) == f"{status} > {ALICE.address}").response


def causes(world: World) -> list[EndCause]:
    """The ends that the media arm was told of."""
    return [question.cause for question in world.questions if isinstance(question, EndRequest)]

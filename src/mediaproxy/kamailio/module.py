"""[shell] The module's functions as methods for Kamailio's Python: KEMI scripts and ``python_exec``.

Kamailio calls; each function finds the message in hand (``turns``), lets ``mediaproxy.module.Run`` decide, asks the
dispatcher if Run wants to (``client``), and puts what has changed into Kamailio's edits (``host``). Nothing is raised,
and what is returned is always an int: an exception, or None, would make the process refuse its next message.
"""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import msgspec

from mediaproxy.control import MediaReply, Question
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.kamailio.client import Client
from mediaproxy.kamailio.complaints import Complaints
from mediaproxy.kamailio.host import Host, HostError
from mediaproxy.kamailio.settings import Settings
from mediaproxy.kamailio.turns import DONE, Memory, Turn, Turns
from mediaproxy.module import FAILED, NO_SDP, OK, ModuleError, Result, RouteType, Steps, drive
from mediaproxy.policy import Policy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import Facts, Failure
from mediaproxy.watch import AsymmetricClients


class Functions:
    """The functions. All take ``msg``, what Kamailio gave to the method that calls, and return a Result: an int that is
    true in ``if`` only above 0."""

    def __init__(self, ksr: Any = None, **settings: Any) -> None:
        """``settings``: see Settings. TypeError or ValueError if one is wrong, which ends Kamailio's start."""
        self.settings = Settings(**settings)
        self.host = Host(ksr or import_module("KSR"))  # made by Kamailio, and only there
        self.client = Client(self.settings.mediaproxy_socket, self.host.warn)
        self.failure: Failure | None = None
        "Why use_media_proxy returned -1 last time, with the SIP status that suits it; None: it did not."
        self._turns = Turns(self.host, self._current_policy)
        self._clients = AsymmetricClients(
            self.settings.sip_asymmetrics, self.settings.rtp_asymmetrics, self.host.warn, self.host.info
        )
        self._policy: Policy | None = None
        self.complaints = Complaints(self.host.warn, time.monotonic)
        if self.host.missing:
            self.host.warn(f"these modules must be loaded, too: {', '.join(self.host.missing)}")
        self._current_policy()

    # -- the functions. Kamailio gives whatever stands in its config: an argument too many must not raise.

    def client_nat_test(self, msg: Any, type: object = "", *more: object) -> Result:  # noqa: A002 - the original's name
        """1 if one of the tests finds that the sender is behind NAT, else -1. ``type``: a sum of 1 (private address in
        Contact), 2 (source differs from the top Via) and 4 (private address in the top Via), as text or number."""
        return self._call("client_nat_test", msg, more, lambda turn: turn.run.client_nat_test(type))

    def nat_test(self, msg: Any, name: object = "", *more: object) -> Result:
        """1 if the named test (``nat.NAMED_TESTS``) finds that the sender is behind NAT, else -1."""
        return self._call("nat_test", msg, more, lambda turn: turn.run.nat_test(name))

    def nat_uac_test(self, msg: Any, flags: object = "", *more: object) -> Result:
        """1 if one of nathelper's tests holds, else -1. ``flags``: a sum of 1 to 512, as text or number."""
        return self._call("nat_uac_test", msg, more, lambda turn: self._nat_uac_test(turn, flags))

    def force_rport(self, msg: Any, *more: object) -> Result:
        """Answer the request to the port that it came from, as Kamailio's own; 1. But not that of a SIP-asymmetric
        client, which does not listen there."""
        return self._call("force_rport", msg, more, self._force_rport)

    def fix_contact(self, msg: Any, *more: object) -> Result:
        """Put the packet's source into every Contact: 1, or -1 if there is none, or ``*``."""
        return self._call("fix_contact", msg, more, lambda turn: self._edit(turn, "c", turn.run.fix_contact()))

    def add_contact_alias(self, msg: Any, *more: object) -> Result:
        """Put the packet's source into every Contact as an alias: 1 added, 2 not needed, -1 error or added already."""
        return self._call(
            "add_contact_alias", msg, more, lambda turn: self._edit(turn, "a", turn.run.add_contact_alias())
        )

    def handle_ruri_alias(self, msg: Any, *more: object) -> Result:
        """Take the alias off the Request-URI and send the request there: 1 done, 2 there is none, -1 malformed."""
        return self._call("handle_ruri_alias", msg, more, self._handle_ruri_alias)

    def ice_candidate(self, msg: Any, policy: object = "", *more: object) -> Result:
        """What becomes of ICE in this message: keep, remove, low-priority, high-priority; 1."""
        return self._call("ice_candidate", msg, more, lambda turn: turn.run.ice_candidate(policy))

    def use_media_proxy(self, msg: Any, *more: object) -> Result:
        """Have the media relayed: 1 done, -1 error, -2 no SDP body. Calling it again for a message does nothing."""
        return self._call("use_media_proxy", msg, more, self._use_media_proxy)

    def end_media_session(self, msg: Any, *more: object) -> Result:
        """End the call's media: 1, or -1 if the dispatcher could not be told."""
        return self._call("end_media_session", msg, more, self._end_media_session)

    # -- how they are called

    def _call(self, name: str, msg: Any, more: Sequence[object], function: Callable[[Turn], Result]) -> Result:
        turn: Turn | None = None
        try:
            turn = self._turns.turn(msg)
            if more:
                raise ModuleError("too many arguments")
            return function(turn)
        except (ModuleError, SipError, HostError) as error:
            text = str(error).removeprefix(f"{name}() ")
            self.complaints.about(f"{name} {type(error).__name__}", f"{name}(){_place(turn)}: {text}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the process must go on to serve
            kind = type(error).__name__
            self.complaints.about(f"{name} {kind}", f"{name}(){_place(turn)}: {kind}: {error}{where(error)}")
        return FAILED

    def _current_policy(self) -> Policy:
        if self._clients.refresh(time.monotonic()) or self._policy is None:
            settings = self.settings
            self._policy = Policy(
                trusted_proxies=settings.trusted_proxies,
                local_domains=settings.local_domains,
                is_local_domain=self.host.is_local_domain if self.host.has("domain") else None,
                sip_asymmetric=self._clients.sip,
                rtp_asymmetric=self._clients.rtp,
                ice=settings.ice_candidate,
            )
        return self._policy

    # -- NAT

    def _force_rport(self, turn: Turn) -> Result:
        if not turn.run.sip_asymmetric:
            self.host.ksr.force_rport()
        return OK

    def _nat_uac_test(self, turn: Turn, flags: object) -> Result:
        if isinstance(turn.run.message, Request):
            self._look_at_uri(turn)
            destination = self.host.text("$du")
            turn.run.destination = Uri.parse(destination) if destination else None
        return turn.run.nat_uac_test(flags)

    def _look_at_uri(self, turn: Turn) -> None:
        """The Request-URI as the script left it: Kamailio keeps it beside the message."""
        message, uri = turn.run.message, self.host.text("$ru")
        if isinstance(message, Request) and uri and uri != message.uri_text:
            turn.run.message = message.with_uri(uri)

    def _handle_ruri_alias(self, turn: Turn) -> Result:
        self._look_at_uri(turn)
        result = turn.run.handle_ruri_alias()
        message, destination = turn.run.message, turn.run.destination
        if result == OK and isinstance(message, Request) and destination is not None:
            self.host.set_text("$ru", message.uri_text)
            self.host.set_text("$du", str(destination))
        return result

    # -- edits

    def _edit(self, turn: Turn, letter: str, result: Result) -> Result:
        if result == OK:
            self._write(turn, letter)
        return result

    def _write(self, turn: Turn, letter: str) -> None:
        """Put what a function changed into Kamailio's edits. HostError if it does not take them; then the message is
        as before."""
        scope = turn.scope
        message, written = scope.run.message, scope.written
        if message is written:
            return
        try:
            self._write_contacts(turn)
            if message.octets != written.octets:
                self._write_body(turn)
        except HostError:
            scope.run.message = written
            raise
        scope.written = message
        if letter not in scope.done:
            scope.done += letter
            if turn.route is RouteType.REQUEST:
                self.host.set_text(DONE, scope.done)

    def _write_body(self, turn: Turn) -> None:
        written, body = turn.scope.written, turn.run.message.octets
        # set_body replaces as much as Content-Length says, and without one nothing: the old body would follow. And it
        # adds the Content-Type that is missing.
        declared = written.content_length == len(written.octets)
        if declared and written.count("content-type"):
            try:
                self.host.set_body(turn.msg, body)
                return
            except HostError:  # it is no text, and too long for Kamailio's variables
                if not self.host.can_replace_body(written.octets, body):
                    raise
        try:
            self.host.replace_body(written.octets, body)
        except ValueError:
            if not declared:
                self._declare_length(turn)
            self.host.set_body(turn.msg, body)

    def _declare_length(self, turn: Turn) -> None:
        if not self._may_apply(turn) or not self.host.declare_length(len(turn.scope.written.octets)):
            raise HostError("a body that is not UTF-8, with a wrong Content-Length") from None
        turn.memory.data = self.host.data()

    def _write_contacts(self, turn: Turn) -> None:
        scope = turn.scope
        old, new = scope.written.raw_fields("contact"), scope.run.message.raw_fields("contact")
        if old == new:
            return
        register = isinstance(scope.run.arrived, Request) and scope.run.arrived.method == "REGISTER"
        if ("c" in scope.done or "a" in scope.done) and not self._apply(turn):
            raise HostError("Contact has been edited already, and that cannot be put into the buffer now")
        changed = [None if line == was else line + b"\n" for was, line in zip(old, new, strict=True)]
        self.host.replace_contacts(turn.msg, changed)
        if register and not self._apply(turn):
            line = "fix_contact(): save() does not see it: call it before record_route()"
            self.complaints.about("save", line)

    def _apply(self, turn: Turn) -> bool:
        """Put the edits so far into the buffer: an edit can be neither seen by others nor edited again before."""
        if not self._may_apply(turn) or not self.host.apply_changes():
            return False
        turn.memory.data = self.host.data()
        return True

    @staticmethod
    def _may_apply(turn: Turn) -> bool:
        return turn.route in (RouteType.REQUEST, RouteType.ONREPLY)

    # -- media

    def _use_media_proxy(self, turn: Turn) -> Result:
        scope, run = turn.scope, turn.run
        if scope.media is not None:
            return scope.media
        if self._acknowledges_failure(turn):
            return NO_SDP
        run.facts = self._facts(turn)
        if run.arrived.octets:
            run.facts = self._media_facts(run.facts, run.arrived)
            ice = self.host.text(self.settings.ice_candidate_avp)
            if ice:
                run.ice_candidate("keep" if ice.lower() == "none" else ice)
        result = self._drive(turn, run.use_media_proxy())
        self.failure = run.failure
        if run.failure is not None:
            line = f"use_media_proxy(): {run.failure.reason}{self._trouble()} (Call-ID {_call_id(turn)})"
            self.complaints.about("media", line)
        if result == OK:
            scope.media = OK
            self._write(turn, "m")
        return result

    def _end_media_session(self, turn: Turn) -> Result:
        if turn.route is RouteType.FAILURE:
            turn.run.status = int(self.host.text("$T_reply_code") or 0)
        else:
            turn.run.facts = self._facts(turn)
        return self._drive(turn, turn.run.end_media_session())

    def _drive(self, turn: Turn, steps: Steps) -> Result:
        memory = turn.memory
        return drive(steps, lambda question: self._ask(memory, question))

    def _ask(self, memory: Memory, question: Question) -> MediaReply | None:
        for asked, answer in memory.answers:
            if asked == question:
                return answer
        before = time.monotonic()
        reply = self.client.ask(question, self.settings.timeout - memory.spent)
        memory.when = time.monotonic()
        memory.spent += memory.when - before
        memory.answers.append((question, reply))
        return reply

    def _trouble(self) -> str:
        return f": {self.client.trouble}" if self.client.trouble else ""

    def _acknowledges_failure(self, turn: Turn) -> bool:
        """An ACK to a final response of 300 and more is hop by hop, and says nothing about media."""
        message = turn.run.arrived
        if not isinstance(message, Request) or message.method != "ACK":
            return False
        return int(self.host.text("$T_reply_code") or 0) >= 300

    def _facts(self, turn: Turn) -> Facts:
        host, message = self.host, turn.run.arrived
        in_dialog = None
        if isinstance(message, Response) and message.status >= 300 and host.text("$T_req($si)"):
            in_dialog = bool(host.text("$T_req($tt)"))
        return Facts(in_dialog=in_dialog, contact=turn.run.facts.contact)

    def _media_facts(self, facts: Facts, message: Message) -> Facts:
        """The same for a message with a body, which may be SDP."""
        return msgspec.structs.replace(
            facts,
            address=self._signaling_address(self.host.text(self.settings.signaling_ip_avp)),
            receiver_version=self._receiver_version(message),
            relay_wish=self.host.text(self.settings.media_relay_avp),
        )

    def _signaling_address(self, text: str) -> Endpoint | None:
        if not text:
            return None
        address = address_text(text)
        if address is None:
            self.complaints.about("signaling", f"{self.settings.signaling_ip_avp}: {text[:80]!r} is no address")
            return None
        return Endpoint(address, 0)

    def _receiver_version(self, message: Message) -> int:
        """IP version of who gets the message, if it is known: the next hop's, of a reply the caller's."""
        if isinstance(message, Response):
            host: str | None = self.host.text("$T_req($si)")
        else:
            uri = self.host.text("$du") or self.host.text("$ru")
            try:
                host = Uri.parse(uri).host
            except SipError:
                return 0
        address = address_text(host or "")
        return 0 if address is None else 6 if ":" in address else 4


def _place(turn: Turn | None) -> str:
    return "" if turn is None else f" in {turn.route}"


def _call_id(turn: Turn) -> str:
    return (turn.run.arrived.header("call-id") or "")[:100]


def where(error: BaseException) -> str:
    """The line that raised it."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return ""
    code = place.tb_frame.f_code
    return f" ({code.co_filename}:{place.tb_lineno}, {code.co_name})"

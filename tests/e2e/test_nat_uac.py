"""Our nat_uac_test, add_contact_alias and handle_ruri_alias beside those of Kamailio's own nathelper, on loopback: one
message after the other is sent to a real Kamailio, which answers with what its functions said."""

import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.module import RouteType, Run
from mediaproxy.nat import Arrival, nat_uac_flags, nat_uac_test
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Request, parse
from tests.e2e.conftest import need

_numbers = itertools.count()
_RUN = os.getpid()
"Several runs at once do not meet."
SERVER = f"127.91.{_RUN % 250}.1"
PHONE = f"127.91.{_RUN % 250}.7"
PORT = 20000 + _RUN % 10000
FLAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

CONFIG = """#!KAMAILIO
debug=-1
log_stderror=yes
fork=yes
children=1
disable_tcp=yes
auto_aliases=no
listen=udp:{server}:{port}
listen=udp:[::1]:{port}
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "textopsx.so"
loadmodule "siputils.so"
loadmodule "nathelper.so"
request_route {{
    force_rport();
    if (is_method("INFO")) {{
        handle_ruri_alias();
        append_to_reply("X-Handled: $rc|$du|$ru\\r\\n");
    }} else if (is_method("MESSAGE")) {{
        add_contact_alias();
        $var(code) = $rc;
        msg_apply_changes();
        append_to_reply("X-Aliased: $var(code)|$hdr(Contact)\\r\\n");
    }} else {{
        $var(fired) = 0;
{tests}
        append_to_reply("X-Fired: $var(fired)\\r\\n");
    }}
    sl_send_reply("299", "Judged");
}}
"""
TEST = '        if (nat_uac_test("{flag}")) {{ $var(fired) = $var(fired) + {flag}; }}'


class Nathelper:
    """A running Kamailio that says what its nathelper thinks."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, message: Request, source: str, header: str) -> str:
        """What it answers to a message from ``ADDRESS:PORT``."""
        place, call_id = Endpoint.parse(source), f"{next(_numbers)}"
        data = bytes(message).replace(b"Call-ID: c\r\n", f"Call-ID: {call_id}\r\n".encode())
        family, server = (socket.AF_INET6, "::1") if place.version == 6 else (socket.AF_INET, SERVER)
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as phone:
            phone.bind((place.address, place.port))
            phone.settimeout(0.3)
            for _ in range(200):  # Kamailio may still be starting
                try:
                    phone.sendto(data, (server, self.port))
                    while (answer := parse(phone.recv(65535))).call_id != call_id:
                        pass  # to what was asked before, twice
                except OSError:
                    continue
                said = answer.header(header)
                assert said is not None
                return said
        raise AssertionError("Kamailio does not answer")


@pytest.fixture(scope="module")
def nathelper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nathelper]:
    need("kamailio")
    folder = tmp_path_factory.mktemp("nathelper")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.bind((SERVER, 0))
        port: int = probe.getsockname()[1]
    config = folder / "kamailio.cfg"
    tests = "\n".join(TEST.format(flag=flag) for flag in FLAGS)
    config.write_text(CONFIG.format(server=SERVER, port=port, tests=tests), "ascii")
    command = ["kamailio", "-DD", "-E", "-f", str(config), "-Y", str(folder), "-P", str(folder / "pid")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Nathelper(port)
    finally:
        process.terminate()
        process.wait(20)


def arrival(source: str) -> Arrival:
    return Arrival(Endpoint.parse(source), "udp", Endpoint(SERVER, 5060))


def request(method: str, via: str, contact: str | None, body: str = "", uri: str = "sip:b@example.com") -> Request:
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/UDP {via};branch=z9hG4bKx",
        "From: <sip:a@example.com>;tag=1",
        "To: <sip:b@example.com>",
        "Call-ID: c",
        f"CSeq: 1 {method}",
        *([f"Contact: {contact}"] if contact is not None else []),
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    message = parse("\r\n".join([*lines, "", body]).encode("latin-1"))
    assert isinstance(message, Request)
    return message


def sdp(session: str, *streams: str, port: int = 4000) -> str:
    """An SDP with a c= line in the session, and one in each stream; "" for none."""
    lines = ["v=0", f"o=- 1 1 IN IP4 {PHONE}", "s=-", *([f"c=IN {session}"] if session else []), "t=0 0"]
    for connection in streams:
        lines += [f"m=audio {port} RTP/AVP 0", *([f"c=IN {connection}"] if connection else [])]
    return "\r\n".join([*lines, ""])


HERE = f"{PHONE}:{PORT}"
CONTACT = f"<sip:a@{HERE}>"

# name -> Via's sent-by and parameters, Contact, SDP, source
ROWS: dict[str, tuple[str, str | None, str, str]] = {
    "nothing-differs": (HERE, CONTACT, "", HERE),
    "no-contact": (HERE, None, "", HERE),
    **{
        f"contact-{host}": (HERE, f"<sip:a@{host}:{PORT}>", "", HERE)
        for host in (
            *("10.0.0.1", "172.16.0.1", "172.31.255.1", "172.32.0.1", "192.168.9.1", "192.169.0.1"),
            *("100.63.255.1", "100.64.0.1", "100.127.255.1", "100.128.0.1", "192.0.0.7", "192.0.0.8", "192.0.1.1"),
            *(
                "127.0.0.1",
                "169.254.1.1",
                "10.1",
                "0xa.0.0.1",
                "167772161",
                "[fd00::1]",
                "[::ffff:10.0.0.1]",
                "a.example",
            ),
        )
    },
    "contact-without-port": (HERE, f"<sip:a@{PHONE}>", "", HERE),
    "contact-port-0": (HERE, f"<sip:a@{PHONE}:0>", "", HERE),
    "contact-default-port": (HERE, f"<sip:a@{PHONE}>", "", f"{PHONE}:5060"),
    "contact-sips-5060": (HERE, f"<sips:a@{PHONE}>", "", f"{PHONE}:5060"),
    "contact-sips-5061": (HERE, f"<sips:a@{PHONE}>", "", f"{PHONE}:5061"),
    "contact-maddr": (HERE, f"<sip:a@{HERE};maddr=10.0.0.1>", "", HERE),
    "contact-without-brackets": (HERE, f"sip:a@10.0.0.1:{PORT};x=y", "", HERE),
    "contact-without-user": (HERE, "<sip:10.0.0.1>", "", HERE),
    "contact-address-in-the-name": (HERE, f'"a, <sip:x@10.0.0.1>" {CONTACT}', "", HERE),
    "contact-tel": (HERE, "<tel:+10>", "", HERE),
    "contact-unreadable": (HERE, "<sip:a@10.0.0.1", "", HERE),
    "contact-star": (HERE, "*", "", HERE),
    "contact-in-two-lines": (HERE, f"{CONTACT}\r\nContact: <sip:a@10.0.0.1>", "", HERE),
    "via-private": (f"10.0.0.1:{PORT}", CONTACT, "", HERE),
    "via-cgn": (f"100.64.1.1:{PORT}", CONTACT, "", HERE),
    "via-longer": (f"{PHONE}1:{PORT}", CONTACT, "", HERE),
    "via-name": (f"phone.example:{PORT}", CONTACT, "", HERE),
    "via-received": (f"{HERE};received=10.0.0.1", CONTACT, "", HERE),
    "via-received-private": (f"10.0.0.1:{PORT};received={PHONE}", CONTACT, "", HERE),
    "via-rport": (f"{PHONE};rport={PORT}", CONTACT, "", HERE),
    "via-maddr": (f"{HERE};maddr=10.0.0.1", CONTACT, "", HERE),
    "via-without-port": (PHONE, CONTACT, "", HERE),
    "via-default-port": (PHONE, CONTACT, "", f"{PHONE}:5060"),
    "via-port-0": (f"{PHONE}:0", CONTACT, "", f"{PHONE}:5060"),
    "via-other-port": (f"{PHONE}:5060", CONTACT, "", HERE),
    "via-ipv6": (f"[::1]:{PORT}", CONTACT, "", HERE),
    "sdp-same": (HERE, CONTACT, sdp(f"IP4 {PHONE}", ""), HERE),
    "sdp-longer": (HERE, CONTACT, sdp(f"IP4 {PHONE}1", ""), HERE),
    "sdp-private": (HERE, CONTACT, sdp("IP4 10.0.0.1", ""), HERE),
    "sdp-192.0.0": (HERE, CONTACT, sdp("IP4 192.0.0.9", ""), HERE),
    "sdp-short-form": (HERE, CONTACT, sdp("IP4 10.1", ""), HERE),
    "sdp-stream-private": (HERE, CONTACT, sdp("", "IP4 10.0.0.1"), HERE),
    "sdp-stream-differs": (HERE, CONTACT, sdp("", "IP4 127.0.0.2"), HERE),
    "sdp-second-private": (HERE, CONTACT, sdp("IP4 198.51.100.1", "", "IP4 10.0.0.1"), HERE),
    "sdp-session-covered": (HERE, CONTACT, sdp("IP4 10.0.0.1", "IP4 198.51.100.1"), HERE),
    "sdp-hold-stops": (HERE, CONTACT, sdp("IP4 198.51.100.1", "IP4 0.0.0.0", "IP4 10.0.0.1"), HERE),
    "sdp-session-hold-stops": (HERE, CONTACT, sdp("IP4 0.0.0.0", "", "IP4 10.0.0.1"), HERE),
    "sdp-ipv6-stops": (HERE, CONTACT, sdp("IP4 198.51.100.1", "IP6 fd00::1", "IP4 10.0.0.1"), HERE),
    "sdp-ipv6-session": (HERE, CONTACT, sdp("IP6 fd00::1", "", "IP4 10.0.0.1"), HERE),
    "sdp-name-goes-on": (HERE, CONTACT, sdp("IP4 a.example", "", "IP4 10.0.0.1"), HERE),
    "sdp-port-0": (HERE, CONTACT, sdp(f"IP4 {PHONE}", "", "IP4 10.0.0.1", port=0), HERE),
    "sdp-without-streams": (HERE, CONTACT, sdp("IP4 10.0.0.1"), HERE),
    "sdp-without-address": (HERE, CONTACT, sdp("", ""), HERE),
    "sdp-lf": (HERE, CONTACT, sdp("IP4 10.0.0.1", "").replace("\r\n", "\n"), HERE),
    "no-sdp": (HERE, CONTACT, "hello", HERE),
    "ipv6-nothing-differs": (f"[::1]:{PORT}", f"<sip:a@[::1]:{PORT}>", sdp("IP6 ::1", ""), f"[::1]:{PORT}"),
    "ipv6-other": (f"[::2]:{PORT}", f"<sip:a@[::1]:{PORT + 1}>", sdp("IP4 127.0.0.1", ""), f"[::1]:{PORT}"),
}


@pytest.mark.parametrize("name", ROWS)
def test_nat_uac_test(nathelper: Nathelper, name: str) -> None:
    via, contact, body, source = ROWS[name]
    message = request("REGISTER" if contact == "*" else "INVITE", via, contact, body)
    theirs = int(nathelper.ask(message, source, "X-Fired"))
    assert nat_uac_flags(message, arrival(source)) == theirs
    ours = [flag for flag in FLAGS if nat_uac_test(message, arrival(source), flag)]
    assert ours == [flag for flag in FLAGS if theirs & flag]
    assert nat_uac_test(message, arrival(source), 1023) is (theirs > 0)


def test_of_several_contacts_the_first_counts(nathelper: Nathelper) -> None:
    """Kamailio 5.6 keeps the list of a line the other way round and takes the last; later ones take the first."""
    private, public = f"<sip:a@10.0.0.1:{PORT}>", CONTACT
    for contacts, ours in ((f"{private}, {public}", 1), (f"{public}, {private}", 0)):
        message = request("INVITE", HERE, contacts)
        assert nat_uac_flags(message, arrival(HERE)) == ours
        assert int(nathelper.ask(message, HERE, "X-Fired")) in (0, 1)


def test_ipv6_addresses_are_compared_by_value(nathelper: Nathelper) -> None:
    """Kamailio 5.6 compares their spelling."""
    message = request("INVITE", f"[0:0:0:0:0:0:0:1]:{PORT}", f"<sip:a@[::1]:{PORT}>")
    assert nat_uac_flags(message, arrival(f"[::1]:{PORT}")) == 0
    assert int(nathelper.ask(message, f"[::1]:{PORT}", "X-Fired")) in (0, 2)


ALIASED = (
    f"<sip:a@{HERE};transport=udp>",
    "<sip:a@10.0.0.1>",
    "<sip:a@10.0.0.1:5062;line=7?X=y>;expires=60",
    f"<sip:a@{PHONE}:9;transport=udp>",
    f"<sip:a@{HERE};transport=tcp>",
    "sip:a@10.0.0.1:5062;q=1",
    "<sips:a@10.0.0.1>",
    '"A" <sip:a@10.0.0.1;alias=192.0.2.1~5~2>',
    "<sip:a@a.example>",
    "<tel:+10>",
    "<sip:a@10.0.0.1",
    None,
)


@pytest.mark.parametrize("contact", ALIASED, ids=range(len(ALIASED)))
def test_add_contact_alias(nathelper: Nathelper, contact: str | None) -> None:
    message = request("MESSAGE", HERE, contact)
    run = Run(message, arrival(HERE), Policy(), RouteType.REQUEST)
    code = run.add_contact_alias()
    assert nathelper.ask(message, HERE, "X-Aliased") == f"{code}|{run.message.header('contact') or '<null>'}"


HANDLED = (
    "sip:b@10.0.0.5:5060;alias=203.0.113.9~40123~3",
    "sip:b@h;alias=192.0.2.4~5~1",
    "sip:b@h;x=y;alias=192.0.2.4~5~2;z?h=v",
    "sip:b@h;alias=192.0.2.4~5~4",
    "sip:b@h;alias=192.0.2.4~5~5",
    "sip:b@h;alias=192.0.2.4~5~6",
    "sip:b@h;alias=[2001:db8::1]~5~1",
    "sip:b@h;alias=192.0.2.4~5~2;alias=192.0.2.5~6~1",
    "sip:b@h",
    "sip:b@h;x",
    "sip:b;alias=192.0.2.4~1~1@h;p",
    "tel:+10;alias=192.0.2.4~5~1",
)
MALFORMED = ("192.0.2.4~5~7", "192.0.2.4~5", "192.0.2.4~5~", "192.0.2.4~5~12")


@pytest.mark.parametrize("uri", [*HANDLED, *(f"sip:b@h;alias={alias}" for alias in MALFORMED)])
def test_handle_ruri_alias(nathelper: Nathelper, uri: str) -> None:
    message = request("INFO", HERE, CONTACT, uri=uri)
    run = Run(message, arrival(HERE), Policy(), RouteType.REQUEST)
    code = run.handle_ruri_alias()
    theirs, target, left = nathelper.ask(message, HERE, "X-Handled").split("|")
    assert code == int(theirs)
    assert str(run.destination or "<null>") == target
    if code > 0:  # Kamailio damages the Request-URI when it finds a broken alias
        assert isinstance(run.message, Request) and run.message.uri_text == left


def test_kamailio_is_still_there(nathelper: Nathelper) -> None:
    assert int(nathelper.ask(request("INVITE", f"10.0.0.1:{PORT}", CONTACT), HERE, "X-Fired")) == 2 + 4

"""What a Kamailio may be set up with: IPv6, TCP, the domain module, settings, lists of clients that change."""

import contextlib
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.kamailio import EXAMPLE, Kamailio
from mediaproxy.sip.message import Request, parse, response_to
from tests import kamailiosite
from tests.e2e.conftest import need
from tests.kamailiosite import RELAY, RELAYED, SDP, Site, invite, words

BOTH = words(request="test=2 fix_contact media")


# -- IPv6


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with kamailiosite.site(tmp_path_factory.mktemp("six"), "::1") as one:
        yield one


def test_ipv6(six: Site) -> None:
    contact = b"Contact: <sip:a@[fd00::5]:5060>, <sip:b@192.168.1.10>\r\n"
    message = six.send(invite(six.alice, six.to, headers=BOTH, contact=contact))
    place = f"[::1]:{six.alice.port}"
    assert message.header("contact") == f"<sip:a@{place}>, <sip:b@{place}>"
    assert six.result(message) == {"test=2": -1, "fix_contact": 1, "media": 1}
    assert message.octets == RELAYED
    question = six.dispatcher.media[-1]
    assert str(question.phone.endpoint) == place
    assert question.receiver_version == 6


def test_ipv6_alias(six: Site) -> None:
    message = six.send(invite(six.alice, six.to, headers=words(request="alias")))
    assert message.header("contact") == f"<sip:a@192.168.1.10:5060;alias=[::1]~{six.alice.port}~1>"
    back = six.send(
        invite(six.alice, f"bob@[fd00::9];alias=[::1]~{six.bob.port}~1", headers=words(request="ruri", branch="ruri"))
    )
    assert back.start_line == "INVITE sip:bob@[fd00::9] SIP/2.0"


# -- TCP


def test_tcp(tmp_path: Path) -> None:
    """The source is that of the connection, and a message may be longer than a datagram."""
    script = kamailiosite.SCRIPT % (str(tmp_path / "dispatcher"), {"timeout": 10.0})
    port = kamailiosite.PORT
    with (
        kamailiosite.Dispatcher(tmp_path / "dispatcher") as dispatcher,
        Kamailio(tmp_path, [f"udp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"], script=script),
        kamailiosite.phones(2, ("127.0.0.1", port)) as (alice, bob),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        own = "{}:{}".format(*connection.getsockname())
        sent = invite(
            alice,
            f"bob@{bob.place}",
            SDP + b"a=x:" + b"\xe4" * 20_000 + b"\r\n",
            headers=words(request="fix_contact media"),
        )
        connection.sendall(sent.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"))
        message = bob.request("INVITE")
        assert message.header("contact") == f"<sip:a@{own}>"
        assert message.octets == RELAYED + b"a=x:" + b"\xe4" * 20_000 + b"\r\n"
        assert str(dispatcher.media[-1].phone.endpoint) == own
        bob.answer(message, 486)


def test_a_body_of_64_kib_over_tcp(tmp_path: Path) -> None:
    place = ("127.0.0.1", kamailiosite.PORT)
    with (
        kamailiosite.site(tmp_path, options=["-l", f"tcp:127.0.0.1:{kamailiosite.PORT}"]) as site,
        socket.create_server(("127.0.0.1", 0)) as bob,
        socket.create_connection(place) as alice,
    ):
        bob.settimeout(30)
        uri = f"bob@127.0.0.1:{bob.getsockname()[1]};transport=tcp"
        body = SDP + b"a=x:" + b"\xe4" * (65_536 - len(SDP) - 6) + b"\r\n"
        sent = invite(site.alice, uri, body, headers=words(request="record_route fix_contact media"))
        alice.sendall(sent.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"))
        connection, _ = bob.accept()
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(30)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.readline()
            wanted = body.replace(SDP, RELAYED)
            assert b"\r\nContent-Length: %d\r\n" % len(wanted) in head
            assert stream.read(len(wanted)) == wanted
            request = parse(head)
            assert isinstance(request, Request)
            connection.sendall(bytes(response_to(request, 486, to_tag="b")))
            assert alice.recv(99).startswith(b"SIP/2.0")


# -- whose users are ours


@contextlib.contextmanager
def with_domains(folder: Path, *domains: str, **settings: Any) -> Iterator[Site]:
    """A site with the domain module, its table in a text file."""
    tables = folder / "tables"
    tables.mkdir()
    for name in ("domain", "domain_attrs", "version"):
        shutil.copy(f"/usr/share/kamailio/dbtext/kamailio/{name}", tables)
    with (tables / "domain").open("a") as file:
        for at, domain in enumerate(domains):
            file.write(f"{at}:{domain}:{domain}:0\n")
    config = folder / "kamailio.cfg"
    loaded = (
        'loadmodule "db_text.so"\nloadmodule "domain.so"\n'
        f'modparam("domain", "db_url", "text://{tables}")\nloadmodule "app_python3.so"'
    )
    config.write_text((EXAMPLE / "kamailio.cfg").read_text().replace('loadmodule "app_python3.so"', loaded))
    with kamailiosite.site(folder, options=["-f", str(config)], **settings) as one:
        yield one


def test_the_domain_module_says_whose_users_are_ours(tmp_path: Path) -> None:
    with with_domains(tmp_path, "sip.test", local_domains=["other.test"]) as site:
        sent = invite(site.alice, site.to, headers=words(request="media"))
        site.send(sent.replace(b"b@sip.test", b"b@other.test"))
        question = site.dispatcher.media[-1]
        assert (question.sender.domain, question.sender.local) == ("sip.test", True)
        assert (question.receiver.domain, question.receiver.local) == ("other.test", False)


def test_or_a_setting_does(tmp_path: Path) -> None:
    with kamailiosite.site(tmp_path, local_domains=["SIP.test"], trusted_proxies=["127.0.0.0/8"]) as site:
        sent = invite(site.alice, site.to, headers=words(request="media"))
        hop = b"Via: SIP/2.0/UDP 192.168.1.10;branch=z9hG4bKphone;received=203.0.113.9\r\n"
        site.send(sent.replace(b"b@sip.test", b"b@other.test").replace(b"Max-Forwards", hop + b"Max-Forwards"))
        question = site.dispatcher.media[-1]
        assert (question.sender.local, question.receiver.local) == (True, False)
        assert question.phone.endpoint is not None
        assert (question.phone.endpoint.address, question.phone.known_by) == ("203.0.113.9", "received")


def test_or_nobody_knows(six: Site) -> None:
    six.send(invite(six.alice, six.to, headers=words(request="media")))
    question = six.dispatcher.media[-1]
    assert (question.sender.local, question.receiver.local) == (None, None)


# -- asymmetric clients


def test_lists_of_clients_are_read_again(tmp_path: Path) -> None:
    sip, rtp = tmp_path / "sip", tmp_path / "rtp"
    sip.write_text("# none\n")
    rtp.write_text("")
    with kamailiosite.site(tmp_path / "site", sip_asymmetrics=str(sip), rtp_asymmetrics=str(rtp)) as site:

        def ask() -> tuple[str | None, bool]:
            headers = words(request="fix_contact media") + b"User-Agent: ipDialog SipTone II\r\n"
            message = site.send(invite(site.alice, site.to, headers=headers))
            return message.header("contact"), site.dispatcher.media[-1].asymmetric

        assert ask() == (f"<sip:a@{site.alice.place}>", False)
        new = tmp_path / "new"
        new.write_text("ipDialog SipTone.*\n(a+)+$\n[[:broken\n")
        new.rename(sip)
        rtp.write_text("siptone\n")
        deadline, same = time.monotonic() + 60.0, 0
        while same < 20:  # both workers
            same = same + 1 if ask() == ("<sip:a@127.0.0.1:5060>", True) else 0
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "line 3" in site.kamailio.log


# -- settings


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("timeout=0", "timeout"),
        ("natping_interval=-1", "natping_interval"),
        ('ice_candidate="often"', "often"),
        ('local_domains="sip.test"', "local_domains"),
        ('trusted_proxies=["10.0.0.0/99"]', "10.0.0.0/99"),
        ("mediaproxy_sokcet=''", "mediaproxy_sokcet"),
    ],
)
def test_a_wrong_setting_ends_the_start(tmp_path: Path, setting: str, complaint: str) -> None:
    script = f"import mediaproxy.kamailio\ndef mod_init():\n    return mediaproxy.kamailio.Module({setting})\n"
    with pytest.raises(Exception, match=complaint):
        Kamailio(tmp_path, [f"udp:127.0.0.1:{kamailiosite.PORT}"], script=script)


# -- configs that lack something


def without(folder: Path, pattern: str) -> Path:
    """The example's config without what matches."""
    config = folder / "less.cfg"
    config.write_text(re.sub(pattern, "", (EXAMPLE / "kamailio.cfg").read_text(), flags=re.DOTALL))
    return config


def test_modules_that_are_not_loaded_are_named(tmp_path: Path) -> None:
    config = without(tmp_path, r'loadmodule "(textopsx|tmx).so"|route\[MEDIAPROXY_.*')
    with Kamailio(tmp_path, [f"udp:127.0.0.1:{kamailiosite.PORT}"], options=["-f", str(config)]) as kamailio:
        kamailio.wait_log("these modules must be loaded, too: textopsx, tmx")


def test_without_the_native_routes_what_is_no_text_is_edited_for_a_while(tmp_path: Path) -> None:
    config = without(tmp_path, r"route\[MEDIAPROXY_.*")
    with kamailiosite.site(tmp_path / "site", options=["-f", str(config)]) as site:
        contact = b'Contact: "\xe4" <sip:a@192.168.1.10:5060>\r\n'
        body = SDP + b"a=\xe4\r\n"
        message = site.send(invite(site.alice, site.to, body, headers=BOTH, contact=contact))
        assert message.octets == RELAYED + b"a=\xe4\r\n"
        assert message.raw_fields("contact") == (b'Contact: "\xe4" <sip:a@%b>\r' % site.alice.place.encode(),)
        site.kamailio.wait_log(
            "route[MEDIAPROXY_LINE] is not in the config: what is not UTF-8 is edited only 5000 times"
        )


def test_without_room_for_what_changes_a_body_that_is_no_text_stays(tmp_path: Path) -> None:
    config = without(tmp_path, r"pv_buffer_size=\d+")
    with kamailiosite.site(tmp_path / "site", options=["-f", str(config)]) as site:
        between, behind = (SDP.replace(at, b"b=X:" + b"\xe4" * 9000 + b"\r\n" + at) for at in (b"m=", b"a=rtpmap"))
        message = site.send(invite(site.alice, site.to, between, headers=BOTH))
        assert message.octets == between
        assert site.result(message) == {"test=2": -1, "fix_contact": 1, "media": -1}
        site.kamailio.wait_log("(see its pv_buffer_size)")
        message = site.send(invite(site.alice, site.to, behind, headers=BOTH))
        assert message.octets == behind.replace(b"c=IN IP4 192.168.1.10", f"c=IN IP4 {RELAY}".encode()).replace(
            b"5004", b"60000"
        )
        text = SDP + b"a=" + b"y" * 50_000 + b"\r\n"
        assert site.send(invite(site.alice, site.to, text, headers=BOTH)).octets == text.replace(SDP, RELAYED)


# -- a transaction that is suspended

ASYNC = 'loadmodule "async.so"\nmodparam("async", "ms_timer", 10)\n'


@pytest.mark.parametrize(
    ("before", "after"), [("fix_contact media", "media test=1"), ("fix_contact", "media test=1"), ("none", "media")]
)
def test_a_suspended_request_goes_on_in_another_process(tmp_path: Path, before: str, after: str) -> None:
    config = tmp_path / "kamailio.cfg"
    python = 'loadmodule "app_python3.so"'
    text = (EXAMPLE / "kamailio.cfg").read_text().replace(python, ASYNC + python)
    config.write_text(text.replace("children=4", "children=4\nasync_workers=1"))
    with kamailiosite.site(tmp_path / "site", options=["-f", str(config)]) as site:
        for _ in range(8):  # that some of both workers have the same number
            sent = invite(
                site.alice, site.to, headers=words(request=f"{before} suspend", later=after) + b"X-No-Relay: 1\r\n"
            )
            message = site.send(sent)
            fixed = site.alice.place if "fix" in before else "192.168.1.10:5060"
            assert message.headers("contact") == (f"<sip:a@{fixed}>",)
            assert message.octets == RELAYED
            assert site.result(message, "later")["media"] == 1


# -- python_exec


NATIVE = """
request_route {
	if ($rU == $null) { sl_send_reply("200", "OK"); exit; }
	$var(call) = $hdr(X-Call);
	if ($var(call) == "nat") { python_exec("client_nat_test", "3"); }
	if ($var(call) == "none") { python_exec("client_nat_test", "0"); }
	if ($var(call) == "wrong") { python_exec("client_nat_test", "x"); }
	if ($var(call) == "fix") { python_exec("fix_contact"); }
	if ($var(call) == "media") { python_exec("use_media_proxy"); }
	if ($var(call) == "end") { python_exec("end_media_session"); }
	if ($var(call) == "many") { python_exec("fix_contact", "1"); }
	$var(code) = $rc;
	xlog("L_INFO", "CODE $ci $var(call) $var(code)\\n");
	if ($var(code) > 0) { t_relay(); }
	if ($var(code) == -1) { sl_send_reply("410", "Code"); }
	if ($var(code) == -2) { sl_send_reply("420", "Code"); }
}
"""


def test_python_exec_gives_the_codes_to_the_config(tmp_path: Path) -> None:
    """Each call several times: none of them leaves a process behind that fails at its next message."""
    config = tmp_path / "native.cfg"
    text = (EXAMPLE / "native.cfg").read_text()
    text = re.sub(r"\nrequest_route \{.*?\n\}\n", lambda _: NATIVE, text, count=1, flags=re.DOTALL)
    config.write_text(text)
    star = b"Contact: *\r\n"
    cases: list[tuple[str, int, dict[str, Any]]] = [
        ("nat", 1, {}),
        ("none", -1, {}),
        ("wrong", -1, {}),
        ("fix", 1, {}),
        ("fix", -1, {"contact": star}),
        ("media", 1, {}),
        ("media", -2, {"body": b""}),
        ("end", 1, {}),
        ("many", -1, {}),
    ]
    with kamailiosite.site(tmp_path / "site", options=["-f", str(config)]) as site:
        for name, code, more in cases * 3:
            sent = invite(site.alice, site.to, headers=f"X-Call: {name}\r\n".encode(), **more)
            if code > 0:
                message = site.send(sent)
                assert message.headers("contact") == (
                    f"<sip:a@{site.alice.place if name == 'fix' else '192.168.1.10:5060'}>",
                )
                assert message.octets == (RELAYED if name == "media" else SDP)
            else:
                site.alice.send(sent)
                site.alice.response(400 - 10 * code)
            assert f"CODE {parse(sent).call_id} {name} {code}\n" in site.kamailio.log


def test_what_we_do_not_read_passes(six: Site) -> None:
    """Kamailio takes a carriage return inside a line; to some it is a line end, so we do not touch such a message."""
    with kamailiosite.phones(1, ("::1", kamailiosite.PORT)) as (carol,):  # nobody else has to read it twice
        sent = invite(six.alice, f"carol@{carol.place}", headers=BOTH)
        six.alice.send(sent.replace(b"X-Request", b"X-Bad: a\rb\r\nX-Request"))
        got = carol.receive()
        assert b"X-Bad: a\rb\r\n" in got and got.endswith(SDP)
        message = parse(got.replace(b"a\rb", b"ab"))
        assert isinstance(message, Request)
        carol.answer(message, 486)
        six.alice.response(486)
    assert six.result(message) == {"test=2": -1, "fix_contact": -1, "media": -1}

"""rtpproxy's commands, modifiers and names: text in, values or error numbers out. Nothing is asked of a relay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import EndRequest, MediaRequest, Party
from mediaproxy.dialects.dialect import ErrorAnswer, Peer
from mediaproxy.dialects.rtpproxy import names
from mediaproxy.dialects.rtpproxy.command import parse, split_cookie
from mediaproxy.dialects.rtpproxy.dialect import Framer, RtpProxy
from mediaproxy.dialects.rtpproxy.errors import Refusal
from mediaproxy.dialects.rtpproxy.modifiers import Modifiers, read
from tests.rtppbench import drive

ANY = ("tcp:*", "unix:/*")
UNIX = Peer(transport="unix")
GARBAGE = b"\xf0\x00\x00Z20\x00\xed\xef \x00\x02U3"
"Memory that Kamailio 5.6 has not filled."


@pytest.mark.parametrize(
    ("text", "verb", "modifiers", "arguments"),
    [
        (b"V", "V", b"", ()),
        (b"v\n", "V", b"", ()),
        (b"VF 20050322", "VF", b"", ("20050322",)),
        (b"vf  20050322\r\n", "VF", b"", ("20050322",)),
        (b"USZ20c0 cid 192.0.2.5 4000 a;1", "U", b"SZ20c0", ("cid", "192.0.2.5", "4000", "a;1")),
        (b"L\tcid 192.0.2.5 4000 a;1 b;1", "L", b"", ("cid", "192.0.2.5", "4000", "a;1", "b;1")),
        (b"D c\xe9\xff\x00 a b", "D", b"", ("c\xe9\xff\x00", "a", "b")),
        (b"dw cid a", "D", b"w", ("cid", "a")),
        (b"Q cid a b ttl rtpa_nlost", "Q", b"", ("cid", "a", "b", "ttl", "rtpa_nlost")),
        (b"Gv", "G", b"v", ()),
        (b"X", "X", b"", ()),
        (
            b"US" + GARBAGE + b"c0 cid 192.0.2.5 4000 a;2",
            "U",
            b"S" + GARBAGE + b"c0",
            ("cid", "192.0.2.5", "4000", "a;2"),
        ),
    ],
)
def test_commands_that_can_be_read(text: bytes, verb: str, modifiers: bytes, arguments: tuple[str, ...]) -> None:
    command = parse(text)
    assert (command.verb, command.modifiers, command.arguments) == (verb, modifiers, arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"", 5),
        (b" \r\n\t", 5),
        (b"Z cid", 0),
        (b"\xff", 0),
        (b"hello", 0),
        (b"0", 0),
        (b"V 1", 1),
        (b"VF", 1),
        (b"VF 1 2", 1),
        (b"U cid 192.0.2.5 4000", 1),
        (b"U cid 192.0.2.5 4000 a b c d e", 1),
        (b"L cid 192.0.2.5 4000 a b c", 1),
        (b"D cid", 1),
        (b"D cid a b c", 1),
        (b"X all", 1),
        (b"I b", 1),
        (b"Q cid", 1),
        (b"P cid prompt codecs", 1),
        (b"C cid target", 1),
        (b"S cid", 1),
        (b"Vx", 2),
        (b"VFx 1", 2),
        (b"Xa", 2),
        (b"Sa cid a", 2),
        (b"U cid 192.0.2.5 4000 a && D", 3),
        (b"V && T1", 3),
        (b"V &&", 5),
        (b"&& V", 5),
        (b"V" + b" && T1" * 16, 5),
        (b"Q" + b" x" * 30, 5),
    ],
)
def test_commands_that_cannot(text: bytes, number: int) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(text)
    assert refusal.value.code == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", Modifiers()),
        (b"a", Modifiers(asymmetric=True)),
        (b"As", Modifiers(asymmetric=False)),
        (b"sA", Modifiers(asymmetric=True)),
        (b"ei", Modifiers(sides="ei")),
        (b"IE", Modifiers(sides="ie")),
        (b"6", Modifiers(ipv6=True)),
        (b"w", Modifiers(weak=True)),
        (b"N", Modifiers(new_port=True)),
        (b"Z20", Modifiers(ptime=20)),
        (b"z999", Modifiers(ptime=999)),
        (b"c0,8,101", Modifiers(codecs=(0, 8, 101))),
        (b"c0,8,8,,128,4000,0", Modifiers(codecs=(0, 8))),
        (b"c", Modifiers(codecs=())),
        (b"L192.0.2.9", Modifiers(local="192.0.2.9")),
        (b"l[2001:DB8::1]", Modifiers(local="2001:db8::1")),
        (b"L{out side}", Modifiers(local="out side")),
        (b"R192.0.2.9a", Modifiers(remote="192.0.2.9", asymmetric=True)),
        (b"US6Z20c0"[1:], Modifiers(ipv6=True, ptime=20, codecs=(0,))),
        (b"Z20c96ei", Modifiers(ptime=20, codecs=(96,), sides="ei")),
        (b"SZ20\x00\x00\x00c96", Modifiers(ptime=20, codecs=(96,))),
        (b"SZ20.0.c", Modifiers(ptime=20, codecs=())),
        (b"SZ20\xf0\x00Zc0", Modifiers(ptime=20, codecs=(0,))),
        (b"SZ20" + GARBAGE + b"c0,101", Modifiers(ptime=20, codecs=(0, 101))),
    ],
)
def test_modifiers(text: bytes, expected: Modifiers) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"eei", 12),
        (b"iee", 11),
        (b"z", 13),
        (b"z0", 13),
        (b"z1000", 13),
        (b"z-1", 13),
        (b"z99999999999999999999", 13),
        (b"c0c8", 14),
        (b"l", 15),
        (b"lx", 15),
        (b"l{}", 15),
        (b"l[::1", 15),
        (b"r", 16),
        (b"l1.2.3", 31),
        (b"l[::zz]", 31),
        (b"r1.2.3.4.5", 32),
        (b"q", 35),
        (b"5", 35),
        (b"?", 35),
        (b"c0?c0", 35),
        (b"\x00", 35),
    ],
)
def test_modifiers_that_cannot_be_read(text: bytes, number: int) -> None:
    with pytest.raises(Refusal) as refusal:
        read(text)
    assert refusal.value.code == number


@pytest.mark.parametrize(
    ("datagram", "cookie", "command"),
    [
        (b"7_1 V", b"7_1", b"V"),
        (b"\n7_1\tVF 1\n", b"7_1", b"VF 1\n"),
        (b"7_1", b"7_1", b""),
        (b"", b"", b""),
        (b" \n", b"", b""),
        (b"\x00\xff V", b"\x00\xff", b"V"),
    ],
)
def test_cookies(datagram: bytes, cookie: bytes, command: bytes) -> None:
    assert split_cookie(datagram) == (cookie, command)
    assert RtpProxy().cookie(datagram) == (cookie or None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a;1", "b;1", ("a", "b", 0)),
        ("a;3", "", ("a", "", 2)),
        ("a", "b;2", ("a", "b", 1)),
        ("a", "", ("a", "", 0)),
        ("a;0", "b", ("a", "b", 0)),
        ("a;x;2", "b", ("a;x", "b", 1)),
        ("a;x", "b", ("a;x", "b", 0)),
        ("a;99999999999", "b", ("a;99999999999", "b", 0)),
        (";1", "", ("", "", 0)),
    ],
)
def test_tags_with_the_number_of_a_stream(first: str, second: str, expected: tuple[str, str, int]) -> None:
    assert names.parties(first, second) == expected


@pytest.mark.parametrize(
    ("socket", "tag", "target"),
    [
        ("unix:/run/x.sock", "1.2", ("unix:/run/x.sock", b"1.2")),
        ("/run/x.sock", "", ("unix:/run/x.sock", b"")),
        ("tcp:192.0.2.1:9000", "a%20b%c3", ("tcp:192.0.2.1:9000", b"a b\xc3")),
        ("tcp:[2001:db8::1]:9000", "%ff", ("tcp:[2001:db8::1]:9000", b"\xff")),
        ("tcp:%%CC_SELF%%:9000", "t", ("tcp:198.51.100.1:9000", b"t")),
        ("tcp:host:0", "t", ("", b"")),
        ("tcp:host:70000", "t", ("", b"")),
        ("tcp:9000", "t", ("", b"")),
        ("xmlrpc:http://192.0.2.1/", "t", ("", b"")),
        ("unix:", "t", ("", b"")),
        ("b", "t", ("", b"")),
    ],
)
def test_timeout_sockets(socket: str, tag: str, target: tuple[str, bytes]) -> None:
    notice = names.notice(socket, tag, "198.51.100.1", ANY)
    assert notice is not None and notice.startswith("rtpp:")
    assert names.target(notice) == target


@pytest.mark.parametrize(
    ("socket", "host", "target"),
    [
        ("tcp:192.0.2.1:9000", "192.0.2.1", "tcp:192.0.2.1:9000"),
        ("tcp:192.0.2.1:9000", "192.0.2.11", ""),
        ("tcp:192.0.2.11:9000", "192.0.2.1", ""),
        ("tcp:%%CC_SELF%%:9000", "[2001:db8::1]", "tcp:[2001:db8::1]:9000"),
        ("tcp:%%CC_SELF%%:9000", "", "tcp:127.0.0.1:9000"),
        ("tcp:127.0.0.1:9000", "192.0.2.1", ""),
        ("tcp:localhost:9000", "127.0.0.1", ""),
        ("unix:/run/kamailio/rtpp.sock", "192.0.2.1", "unix:/run/kamailio/rtpp.sock"),
        ("/tmp/rtpp.sock", "", "unix:/tmp/rtpp.sock"),
        ("unix:/run/docker.sock", "", ""),
        ("unix:/run/mediaproxy/admin.sock", "", ""),
        ("unix:/tmp/../run/docker.sock", "", ""),
        ("unix:tmp/x", "", ""),
    ],
)
def test_which_timeout_sockets_may_be_told_by_default(socket: str, host: str, target: str) -> None:
    notice = names.notice(socket, "t", host)
    assert notice is not None
    assert names.target(notice)[0] == target


@pytest.mark.parametrize("tag", ["%", "%4", "%zz", "a%", "a%0Ab", "%0d", "%7F", "%1b", "%00"])
def test_tags_that_are_no_url_encoding_or_more_than_a_line(tag: str) -> None:
    assert names.notice("tcp:a:1", tag, "") is None
    _, answer = drive(RtpProxy().answer(f"U c 192.0.2.5 4000 a;1 b;1 tcp:a:1 {tag}".encode(), UNIX), [])
    assert answer == b"E10\n" and isinstance(answer, ErrorAnswer)


@pytest.mark.parametrize(
    ("further", "to_tag", "notify"),
    [
        ("", "", "rtpp:"),
        (" b;1", "b", "rtpp:"),
        (" b;1 tcp:h:9 t", "b", "rtpp:tcp:h:9 t"),
        (" tcp:h:9 t", "", "rtpp:tcp:h:9 t"),
        (" unix:/x t", "", "rtpp:unix:/x t"),
        (" b;1 tcp:h:9", "b", "rtpp:tcp:h:9 "),  # Kamailio 5.6 with timeout_socket (tried)
        (" tcp:h:9;t", "", "rtpp:tcp:h:9 t"),  # as Kamailio joins them if there is no To tag
        (" b;1 tcp:h:9;t", "b", "rtpp:tcp:h:9 t"),
        (" b;1 what t", "b", "rtpp:"),
        (" 192.0.2.1:9000 t", "", "rtpp:"),
        (" b/64==;1", "b/64==", "rtpp:"),  # no tag of RFC 3261, but of a phone
        (" b/64==;1 tcp:h:9", "b/64==", "rtpp:tcp:h:9 "),
    ],
)
def test_whom_u_wants_to_be_told(further: str, to_tag: str, notify: str) -> None:
    steps = RtpProxy(sockets=ANY).answer(f"U c 192.0.2.5 4000 a;1{further}".encode(), UNIX)
    asked, _ = drive(steps, [None])
    (question,) = asked
    assert isinstance(question, MediaRequest)
    assert (question.receiver.tag, question.notify) == (to_tag, notify)


@pytest.mark.parametrize("place", ["example.org 4000", "1.2.3 4000", "192.0.2.5 x", "192.0.2.5 65536", "192.0.2.5 -1"])
def test_places_that_cannot_be_read(place: str) -> None:
    assert drive(RtpProxy().answer(f"U c {place} a;1".encode(), UNIX), []) == ([], b"E37\n")


def test_any_byte_of_a_call_id_and_a_tag_survives() -> None:
    every = bytes(byte for byte in range(256) if byte not in b"\r\n\t ")
    asked, answer = drive(RtpProxy().answer(b"7_1 D %b %b %b" % (every, every, every), Peer(transport="udp")), [None])
    text = every.decode("latin-1")
    assert isinstance(asked[0], EndRequest)
    assert asked[0].call_id == text and asked[0].sender == asked[0].receiver == Party(tag=text)
    assert answer == b"7_1 E98\n"


@given(st.binary(max_size=200))
def test_any_bytes_have_an_answer_with_their_cookie(data: bytes) -> None:
    dialect = RtpProxy()
    for transport in ("udp", "unix"):
        steps = dialect.answer(data, Peer(transport=transport))
        _, answer = drive(steps, [None] * 10)
        cookie = dialect.cookie(data) if transport == "udp" else None
        assert answer.startswith(cookie + b" " if cookie else b"") and answer.endswith(b"\n")


@given(
    st.sampled_from(list("ULDPRCSNQVIXG")),
    st.text(alphabet=st.characters(max_codepoint=255), max_size=8),
    st.lists(st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\t "), min_size=1), max_size=8),
)
def test_a_command_is_read_as_it_was_written(verb: str, modifiers: str, arguments: list[str]) -> None:
    text = " ".join([verb + modifiers.translate(dict.fromkeys(map(ord, "\r\n\t "))), *arguments])
    try:
        command = parse(text.encode("latin-1"))
    except Refusal:
        return
    if command.verb not in "UL":  # of those with garbage, see above
        written = (command.verb + command.modifiers.decode("latin-1"), *command.arguments)
        assert " ".join(written).lower() == text.lower()


@given(st.lists(st.binary(max_size=30), max_size=12), st.booleans())
def test_framing_takes_what_comes_in_any_pieces(pieces: list[bytes], single: bool) -> None:
    framer = Framer(single=single)
    commands = [command for piece in pieces for command in framer.feed(piece)]
    whole = b"".join(pieces)
    if not framer.ended:
        lines = whole.split(b"\n")
        assert commands == [b" " + line for line in lines[:-1] if line.strip()]
        assert framer.waiting == len(lines[-1])
    else:  # the modules write one command at once
        assert commands == [b" " + next(piece for piece in pieces if piece)]
        assert framer.feed(b"more\n") == [] and framer.waiting == 0


def test_a_command_of_a_connection_is_no_repetition_of_another_one() -> None:
    dialect = RtpProxy()
    for transport in ("tcp", "cunix"):
        for command in dialect.framer(transport).feed(b"D c a b\nD c a b\n"):
            assert dialect.cookie(command) is None
            asked, _ = drive(dialect.answer(command, Peer(transport=transport)), [None])
            assert isinstance(asked[0], EndRequest) and asked[0].call_id == "c"


@pytest.mark.parametrize("command", [b"V", b"V\n", b"V\r\n", b"\n", b"V\nV\n"])
def test_a_unix_connection_has_one_command_whole_or_not(command: bytes) -> None:
    """As with rtpproxy -s unix:PATH, whose clients may wait for the end of the connection."""
    framer = RtpProxy().framer("unix")
    assert framer.feed(command) == [b" " + command] and framer.ended


@pytest.mark.parametrize("transport", ["tcp", "cunix"])
def test_other_connections_go_on_line_by_line(transport: str) -> None:
    framer = RtpProxy().framer(transport)
    assert framer.feed(b"V\nVF 2005") == [b" V"]
    assert framer.feed(b"0322\n") == [b" VF 20050322"] and not framer.ended
    assert not framer.feed(b"V"), "it may go on"

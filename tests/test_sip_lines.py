"""Edits of messages: they change what they are about and nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, Response, parse
from tests.sip_corpus import CORPUS, MESSAGES, field_lines, mutated, parsed

Message = Request | Response


def lines(*text: str, body: str = "") -> bytes:
    return ("\r\n".join(text) + "\r\n\r\n" + body).encode("latin-1")


# -- the pairs of tests/messages: what one edit makes of a message --


def _contact_to(index: int, host: str, port: int | None) -> Callable[[Message], Message]:
    def edit(message: Message) -> Message:
        contact = message.contacts[index]
        return message.replace_value("Contact", index, str(contact.with_uri(contact.uri.with_host_port(host, port))))

    return edit


def _bare_contact(message: Message) -> Message:
    contact = message.contacts[0]
    return message.replace_value("Contact", 0, str(contact.with_uri(contact.uri.with_param("nat", "yes"))))


def _rport(message: Message) -> Message:
    via = message.via.with_param("rport", "61000").with_param("received", "203.0.113.5")
    return message.replace_value("Via", 0, str(via))


def _via_on_top(message: Message) -> Message:
    return _contact_to(0, "203.0.113.5", 61000)(message).prepend("Via", "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK-us")


def _request_uri(message: Message) -> Message:
    assert isinstance(message, Request)
    return message.with_uri(message.uri.with_host_port("192.168.1.30", 5060))


PAIRS: dict[str, Callable[[Message], Message]] = {
    "several-contacts-one-line": _contact_to(1, "203.0.113.5", 61002),
    "several-contacts-many-lines": _contact_to(2, "198.51.100.7", 4444),
    "folded-contact": _contact_to(0, "203.0.113.5", 61000),
    "compact-names-new-body": lambda m: m.with_body(b"v=0\r\nc=IN IP4 203.0.113.100\r\n"),
    "quoted-name-with-comma": _contact_to(0, "203.0.113.5", 61000),
    "space-before-colon": _rport,
    "bytes-that-are-no-utf-8": _contact_to(0, "203.0.113.5", 61000),
    "lf-only": _via_on_top,
    "two-vias-one-line": lambda m: m.remove_value("Via", 0),
    "ipv6-contact": _contact_to(0, "2001:db8:5::9", 40000),
    "contact-without-brackets": _bare_contact,
    "octets-behind-the-body": lambda m: m.delimited(),
    "no-content-length": lambda m: m.delimited(),
    "escapes-in-the-request-uri": _request_uri,
}


@pytest.mark.parametrize("name", PAIRS)
def test_one_edit_changes_one_span(name: str) -> None:
    before = parse(MESSAGES[name])
    assert bytes(PAIRS[name](before)) == MESSAGES[f"{name}.fixed"]
    assert bytes(before) == MESSAGES[name], "the message that was edited has changed"


@pytest.mark.parametrize("name", PAIRS)
def test_a_server_accepts_the_message_before_and_after(name: str) -> None:
    check(parse(MESSAGES[name]))
    check(parse(MESSAGES[f"{name}.fixed"]))


# -- editing --

SMALL = lines("INVITE sip:a@b SIP/2.0", "W: 1, 2 ,3", "Q:", "w : 4,", "Via: v", body="b")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda m: m.replace_value("W", 1, "two"), SMALL.replace(b"2 ,", b"two ,")),
        (lambda m: m.replace_value("w", 3, "four"), SMALL.replace(b"4,", b"four,")),
        (lambda m: m.remove_value("W", 0), SMALL.replace(b"1, ", b"")),
        (lambda m: m.remove_value("W", 1), SMALL.replace(b"2 ,", b"")),
        (lambda m: m.remove_value("W", 2), SMALL.replace(b" ,3", b"")),
        (lambda m: m.remove_value("W", 3), SMALL.replace(b"w : 4,\r\n", b"")),
        (lambda m: m.replace("w", "one"), SMALL.replace(b"1, 2 ,3", b"one")),
        (lambda m: m.replace("Q", "why"), SMALL.replace(b"Q:", b"Q: why")),
        (lambda m: m.prepend("w", "0"), SMALL.replace(b"W:", b"w: 0\r\nW:")),
        (lambda m: m.prepend("v", "0"), SMALL.replace(b"Via:", b"v: 0\r\nVia:")),
        (lambda m: m.prepend("Z", "z"), SMALL.replace(b"W:", b"Z: z\r\nW:")),
        (lambda m: m.append("W", "5"), SMALL.replace(b"4,\r\n", b"4,\r\nW: 5\r\n")),
        (lambda m: m.append("Z", "z"), SMALL.replace(b"Via: v\r\n", b"Via: v\r\nZ: z\r\n")),
        (lambda m: m.remove("W"), SMALL.replace(b"W: 1, 2 ,3\r\n", b"").replace(b"w : 4,\r\n", b"")),
        (lambda m: m.remove("Z"), SMALL),
        (lambda m: m.with_body(b"bb"), SMALL.replace(b"Via: v\r\n\r\nb", b"Via: v\r\nContent-Length: 2\r\n\r\nbb")),
        (
            lambda m: m.with_body(b"", "a/b"),
            SMALL.replace(b"Via: v\r\n\r\nb", b"Via: v\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n"),
        ),
        (lambda m: m.with_uri("tel:+1"), SMALL.replace(b"sip:a@b", b"tel:+1")),
    ],
)
def test_edits(edit: Callable[[Message], Message], expected: bytes) -> None:
    m = parse(SMALL)
    assert bytes(edit(m)) == expected
    assert bytes(m) == SMALL
    assert bytes(parse(expected)) == expected


def test_a_new_body_replaces_all_lengths_and_the_octets_behind() -> None:
    m = parse(lines("MESSAGE sip:a@b SIP/2.0", "Content-Length: 1", "c: x/y", "l:1", body="bTAIL"))
    assert bytes(m.with_body(b"xyz", "z/z")) == lines(
        "MESSAGE sip:a@b SIP/2.0", "Content-Length: 3", "c: z/z", body="xyz"
    )


def test_a_message_without_its_empty_line_gets_one_with_its_body() -> None:
    assert bytes(parse(b"OPTIONS sip:a SIP/2.0\r\nl:5\r\n").with_body(b"x")) == b"OPTIONS sip:a SIP/2.0\r\nl:1\r\n\r\nx"


def test_several_values_at_once() -> None:
    m = parse(SMALL)
    one_by_one = m.replace_value("W", 0, "one").replace_value("W", 2, "three").replace_value("W", 3, "four")
    assert m.replace_values("w", {2: "three", 0: "one", 3: "four"}) == one_by_one
    assert m.replace_values("W", {}) == m
    for wrong in ({4: "x"}, {-1: "x"}):
        with pytest.raises(IndexError):
            m.replace_values("W", wrong)


def test_too_many_lines_are_refused() -> None:
    data = lines("OPTIONS sip:a@b SIP/2.0", *["Via:x"] * 1000)
    assert parse(data).remove("Via").names == ()
    with pytest.raises(SipError) as caught:
        parse(data.replace(b"\r\n", b"\r\nVia:x\r\n", 1))
    assert caught.value.status == 513


def test_an_empty_field_has_no_value_to_replace() -> None:
    m = parse(lines("OPTIONS sip:a@b SIP/2.0", "Subject:", "Supported: ", "s: \r\n \r\n x"))
    assert (m.values("Subject"), m.values("Supported")) == (("x",), ())
    assert m.replace_value("Subject", 0, "y").headers("Subject") == ("", "y")
    assert m.replace("Subject", "y").headers("Subject") == ("y", "x")


def test_edits_without_a_place() -> None:
    m = parse(SMALL)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            m.replace_value("W", index, "no")
    with pytest.raises(IndexError):
        m.remove_value("Z", 0)
    with pytest.raises(KeyError):
        m.replace("Z", "no")


@pytest.mark.parametrize("text", ["a\r\nVia: x", "a\n", "a\rb", "\r\n", "日本", "a\r\n\r\n b"])
def test_text_that_would_break_the_message_is_refused(text: str) -> None:
    m = parse(SMALL)
    for edit in (m.append, m.prepend, m.replace):
        with pytest.raises(SipError):
            edit("W", text)
    with pytest.raises(SipError):
        m.replace_value("W", 0, text)
    with pytest.raises(SipError):
        Request.build("OPTIONS", "sip:a@b", [("W", text)])


def test_a_bad_request_uri_is_refused() -> None:
    m = parse(SMALL)
    assert isinstance(m, Request)
    for uri in ("sip:a b", "a", "<sip:a>", "sip:a\r\n b"):
        with pytest.raises(SipError):
            m.with_uri(uri)


def test_the_uri_is_replaced_even_if_it_looks_like_the_rest_of_the_line() -> None:
    for uri in ("S:I", "sip:SIP/2.0", "o:O"):
        m = parse(f"OPTIONS {uri} SIP/2.0\r\n\r\n".encode())
        assert isinstance(m, Request)
        assert m.with_uri("sip:new").start_line == "OPTIONS sip:new SIP/2.0"


# -- properties --


@given(st.one_of(st.sampled_from(CORPUS), mutated()), st.data())
def test_replacing_one_value_leaves_all_else(data: bytes, draw: st.DataObject) -> None:
    m = parsed(data)
    if m is None or not m.names:
        return
    name = draw.draw(st.sampled_from(m.names))
    values = m.values(name)
    if not values:
        return
    index = draw.draw(st.integers(0, len(values) - 1))
    edited = m.replace_value(name, index, "<sip:new@host>;x")
    assert edited.values(name) == (*values[:index], "<sip:new@host>;x", *values[index + 1 :])
    before, after = field_lines(data), field_lines(bytes(edited))
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert len(changed) <= 1
    assert (edited.octets, edited.start_line, edited.names) == (m.octets, m.start_line, m.names)
    assert parse(bytes(edited)) == edited


@given(st.one_of(st.sampled_from(CORPUS), mutated()), st.data())
def test_removing_one_value_leaves_all_else(data: bytes, draw: st.DataObject) -> None:
    m = parsed(data)
    if m is None or not m.names:
        return
    name = draw.draw(st.sampled_from(m.names))
    values = m.values(name)
    if not values:
        return
    index = draw.draw(st.integers(0, len(values) - 1))
    edited = m.remove_value(name, index)
    assert edited.values(name) == (*values[:index], *values[index + 1 :])
    others = [(old, m.headers(old)) for old in m.names if old != name]
    assert [(old, edited.headers(old)) for old in edited.names if old != name] == others
    assert parse(bytes(edited)) == edited


@given(
    st.one_of(st.sampled_from(CORPUS), mutated()), st.sampled_from(["Via", "v", "Record-Route", "X-New"]), st.booleans()
)
def test_a_new_field_leaves_all_else(data: bytes, name: str, first: bool) -> None:
    m = parsed(data)
    if m is None:
        return
    old = m.headers(name)
    edited = m.prepend(name, "new, value") if first else m.append(name, "new, value")
    assert edited.headers(name) == (("new, value", *old) if first else (*old, "new, value"))
    kept = [line for line in field_lines(bytes(edited)) if line.rstrip(b"\r") != f"{name}: new, value".encode()]
    assert kept == field_lines(data)
    removed = edited.remove(name)
    assert removed.headers(name) == () and len(removed.names) == len(m.names) - len(old)
    assert parse(bytes(edited)) == edited


def test_fields_as_they_stand_in_the_message() -> None:
    message = parse(lines("OPTIONS sip:a SIP/2.0", "m : <sip:1@a>", "X: 1", "CONTACT:<sip:2@a>,", " <sip:3@a>"))
    assert message.raw_fields("Contact") == (b"m : <sip:1@a>\r", b"CONTACT:<sip:2@a>,\r\n <sip:3@a>\r")
    assert message.raw_fields("Route") == ()

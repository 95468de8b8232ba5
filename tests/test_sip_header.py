"""NameAddr and CSeq: read as the RFC says, edited where they are edited and nowhere else."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given

from mediaproxy.sip.grammar import WS, SipError
from mediaproxy.sip.header import CSeq, NameAddr, Uri
from tests.sip_corpus import quickly, values

INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'

# -- NameAddr --


@pytest.mark.parametrize(
    ("text", "display", "uri", "params"),
    [
        ("<sip:a@b>", "", "sip:a@b", {}),
        ("<sip:a@b;lr>;tag=1", "", "sip:a@b;lr", {"tag": "1"}),
        ("sip:a@b;tag=1;x", "", "sip:a@b", {"tag": "1", "x": ""}),
        (" sip:a@b ", "", "sip:a@b", {}),
        ("A. G. Bell <sip:a@b> ;Tag = x", "A. G. Bell", "sip:a@b", {"tag": "x"}),
        ('"Bell, \\"A\\" <x>;y" <sip:a@b>;tag=1', 'Bell, "A" <x>;y', "sip:a@b", {"tag": "1"}),
        ('"a\\\\"<sip:a@b>', "a\\", "sip:a@b", {}),
        ("caller<sip:a@b>", "caller", "sip:a@b", {}),
        ('"two\r\n lines"\r\n <sip:a@b>\r\n ;a\r\n =\r\n 1', "two lines", "sip:a@b", {"a": "1"}),
        ('""<sip:a@b>', "", "sip:a@b", {}),
        ("\xd0\x9f\xd1\x80 <sip:a@b>", "\xd0\x9f\xd1\x80", "sip:a@b", {}),
        ("a@b <sip:a@b>", "a@b", "sip:a@b", {}),
        ('"A" B <sip:a@b>', '"A" B', "sip:a@b", {}),
        (f"<sip:a@b>;{INSTANCE};reg-id=1", "", "sip:a@b", {"+sip.instance": INSTANCE[14:], "reg-id": "1"}),
        ('sip:a@b;x="<y>"', "", "sip:a@b", {"x": '"<y>"'}),
        ("<tel:+1;isub=2>;q=0.5", "", "tel:+1;isub=2", {"q": "0.5"}),
        ("tel:+1;isub=2", "", "tel:+1", {"isub": "2"}),
        ('"Joe" <sip:a@b>;;;;', "Joe", "sip:a@b", {}),
        ("Bob sip:a@b", "Bob", "sip:a@b", {}),
        ("Bob\tB.\r\n  Smith sip:a@b ; tag = 1", "Bob\tB. Smith", "sip:a@b", {"tag": "1"}),
    ],
)
def test_name_addr(text: str, display: str, uri: str, params: dict[str, str]) -> None:
    address = NameAddr.parse(text)
    assert (address.display, str(address.uri), dict(address.params)) == (display, uri, params)
    assert address.tag == params.get("tag", "")
    assert not address.star
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<>",
        "<sip:a@b",
        '"open <sip:a@b>',
        '"open\\" <sip:a@b>',
        "<sip:a@b> x",
        "<sip:a@b>, <sip:c@d>",
        "< sip:a@b >",
        "sip:a@b x",
        "sip:a@b sip:c@d",
        "Bob *",
        '"Bob" sip:a@b',
        "alan@jasomi.com",
        "a b",
        "** ",
        ";tag=1",
        "<sip:a@b?x=<y>",
        "x <y> <sip:a@b>",
    ],
)
def test_no_name_addr(text: str) -> None:
    with pytest.raises(SipError):
        NameAddr.parse(text)


def test_star() -> None:
    star = NameAddr.parse(" * ")
    assert star.star and str(star) == " * "
    assert (star.uri.host, star.uri.endpoint, star.display, star.tag) == ("", None, "", "")
    assert not NameAddr.parse("<sip:*@b>").star


def test_many() -> None:
    many = NameAddr.parse_many('"a, b" <sip:a,b@c>;x="1,2" ,, sip:d@e;q=1,\r\n <sip:f@g>')
    assert [str(one.uri) for one in many] == ["sip:a,b@c", "sip:d@e", "sip:f@g"]
    assert [str(one) for one in many] == ['"a, b" <sip:a,b@c>;x="1,2"', "sip:d@e;q=1", "<sip:f@g>"]


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (lambda a: a.with_uri("sip:x@y"), ' "N" \r\n <sip:a@b;lr> ; q = 1 ', ' "N" \r\n <sip:x@y> ; q = 1 '),
        (lambda a: a.with_uri("sip:x@y"), "sip:a@b ;q=1", "sip:x@y ;q=1"),
        (lambda a: a.with_uri("sip:x@y;lr"), "sip:a@b;q=1", "<sip:x@y;lr>;q=1"),
        (lambda a: a.with_uri("sip:x,y@z"), "sip:a@b", "<sip:x,y@z>"),
        (lambda a: a.with_uri("sip:x@y?z=1"), "sip:a@b", "<sip:x@y?z=1>"),
        (lambda a: a.with_uri(Uri.parse("tel:1")), "<sip:a@b>", "<tel:1>"),
        (lambda a: a.with_param("tag", "t"), "<sip:a@b> \r\n ; q = 1", "<sip:a@b> \r\n ; q = 1;tag=t"),
        (lambda a: a.with_param("Q", "2"), "<sip:a;q=0@b> ; q = 1 ;x", "<sip:a;q=0@b> ; q = 2 ;x"),
        (lambda a: a.with_param("x"), "sip:a@b", "sip:a@b;x"),
        (lambda a: a.without_param("q"), 'N <sip:a@b;q=0>;x=";q=3" ;q=1;y', 'N <sip:a@b;q=0>;x=";q=3" ;y'),
        (lambda a: a.with_param("expires", "60"), f"<sip:a@b>;{INSTANCE}", f"<sip:a@b>;{INSTANCE};expires=60"),
    ],
)
def test_name_addr_edits(edit: Callable[[NameAddr], NameAddr], before: str, after: str) -> None:
    assert str(edit(NameAddr.parse(before))) == after
    assert edit(NameAddr.parse(before)) == NameAddr.parse(after)


def test_build() -> None:
    assert str(NameAddr.build("sip:a@b")) == "<sip:a@b>"
    built = NameAddr.build("sip:a@b", 'A "B" \\')
    assert str(built) == '"A \\"B\\" \\\\" <sip:a@b>' and built.display == 'A "B" \\'


# -- CSeq --


@pytest.mark.parametrize(
    ("text", "number", "method"),
    [
        ("1 INVITE", 1, "INVITE"),
        ("0009\r\n  INVITE", 9, "INVITE"),
        ("2147483647 !a'~", 2**31 - 1, "!a'~"),
        ("0 x", 0, "x"),
    ],
)
def test_cseq(text: str, number: int, method: str) -> None:
    assert CSeq.parse(text) == CSeq(number, method)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "INVITE",
        "INVITE 1",
        "-1 INVITE",
        "2147483648 INVITE",
        "9" * 9999 + " I",
        "1 IN(",
        "1 A B",
        "\xb2 A",
        "1\xa0A",
    ],
)
def test_no_cseq(text: str) -> None:
    with pytest.raises(SipError):
        CSeq.parse(text)


# -- properties --


@given(values)
def test_lossless_or_our_error(text: str) -> None:
    try:
        value = NameAddr.parse(text)
    except SipError:
        return
    assert str(value) == text
    edited = value.with_param("NEW", "1")
    assert edited.params["new"] == "1"
    assert str(edited.without_param("new")).rstrip(WS) == text.rstrip(WS)


@given(values)
def test_a_new_uri_leaves_all_else(text: str) -> None:
    try:
        address = NameAddr.parse(text)
    except SipError:
        return
    edited = address.with_uri("sip:new@192.0.2.9;ob")
    assert str(edited.uri) == "sip:new@192.0.2.9;ob"
    assert (edited.display, edited.params.text) == (address.display, address.params.text)


@pytest.mark.parametrize(
    "evil",
    [
        '"' * 60001,
        " " * 60000,
        "<" * 60000,
        '"\\' * 30000 + "<sip:a>",
        "sip:a" + " " * 60000 + "x",
        "<sip:a@b>" + ' ; a = "' * 8000,
        "<sip:a@b>" + " " * 60000 + "x",
        '"a"' * 20000,
    ],
    ids=range(8),
)
def test_long_evil_text_takes_no_time(evil: str) -> None:
    with quickly(), contextlib.suppress(SipError):
        assert str(NameAddr.parse(evil)) == evil

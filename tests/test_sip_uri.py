"""Uri: read as the RFC says, edited where it is edited and nowhere else."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.grammar import WS, SipError
from mediaproxy.sip.uri import Uri
from tests.sip_corpus import quickly, values

INSTANCE = "+sip.instance"


@pytest.mark.parametrize(
    ("text", "scheme", "user", "password", "host", "port"),
    [
        ("sip:example.com", "sip", None, None, "example.com", None),
        ("SIPS:alice@Example.COM:5061", "sips", "alice", None, "Example.COM", 5061),
        ("sip:alice:se%63ret@192.0.2.1", "sip", "alice", "se%63ret", "192.0.2.1", None),
        ("sip:alice:@192.0.2.1", "sip", "alice", "", "192.0.2.1", None),
        ("sip:@192.0.2.1", "sip", "", None, "192.0.2.1", None),
        ("sip:alice@[2001:db8::1]:5070;lr", "sip", "alice", None, "[2001:db8::1]", 5070),
        ("sip:[::ffff:192.0.2.1]", "sip", None, None, "[::ffff:192.0.2.1]", None),
        ("sip:[fe80::1%eth0.7]:1", "sip", None, None, "[fe80::1%eth0.7]", 1),
        ("sip:user;par=u%40example.net@example.com", "sip", "user;par=u%40example.net", None, "example.com", None),
        ("sip:1?,/;;*:&it+has=1!*pas$wo~d@h", "sip", "1?,/;;*", "&it+has=1!*pas$wo~d", "h", None),
        ("sip:a@b@c", "sip", "a@b", None, "c", None),
        ("sip:a@b;x=c@d", "sip", "a", None, "b", None),
        ("sip:a@my_host-1.lan:05060", "sip", "a", None, "my_host-1.lan", 5060),
        ("sip:a@m\xc3\xbcnchen", "sip", "a", None, "m\xc3\xbcnchen", None),
        ("sip:a@h?Route=%3Csip:x%3E&b=c", "sip", "a", None, "h", None),
        ("sip:a@h:0", "sip", "a", None, "h", 0),
        ("tel:+1-201-555-0123;phone-context=x", "tel", None, None, "", None),
        ("soap.beep://192.0.2.103:3002", "soap.beep", None, None, "", None),
        ("isbn:2983792873", "isbn", None, None, "", None),
        ("http://www.example.com?a,b", "http", None, None, "", None),
        ("urn:service:sos", "urn", None, None, "", None),
    ],
)
def test_uri(text: str, scheme: str, user: str | None, password: str | None, host: str, port: int | None) -> None:
    uri = Uri.parse(text)
    assert (uri.scheme, uri.user, uri.password, uri.host, uri.port) == (scheme, user, password, host, port)
    assert str(uri) == text
    assert f"{text[: len(scheme)]}:{uri.rest}" == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip:",
        "sip",
        ":x",
        "1a:x",
        "alan@jasomi.com",
        "sip:a@",
        "sip:a@:5060",
        "sip:a@b:",
        "sip:a@b:65536",
        "sip:a@b:" + "9" * 5000,
        "sip:a@b:\xb2",
        "sip:a@b:5060x",
        "sip:a b@c",
        "sip:a@b ",
        "sip:a@b\r\n",
        "sip:a@b\x00",
        "<sip:a@b>",
        "sip:a@[::1",
        "sip:a@::1",
        "sip:2001:db8::10",
        "sip:a@[x]",
        "sip:a@[::1]5060",
        "sip:a@b/c",
        "sip://a",
        "sips:a@b,c",
        "nobody:",
    ],
)
def test_no_uri(text: str) -> None:
    with pytest.raises(SipError):
        Uri.parse(text)


def test_uri_params_and_headers() -> None:
    uri = Uri.parse("sip:u;no=param@h:5060;LR;transport=TCP;gr=urn:uuid:f;x=%41?a=b;c&d=e")
    assert dict(uri.params) == {"lr": "", "transport": "TCP", "gr": "urn:uuid:f", "x": "%41"}
    assert uri.headers == "a=b;c&d=e"
    assert dict(Uri.parse("tel:1;x=y").params) == {}


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("sip:a@192.0.2.1", Endpoint("192.0.2.1", 5060)),
        ("sip:a@192.0.2.1:7", Endpoint("192.0.2.1", 7)),
        ("sips:a@192.0.2.1", Endpoint("192.0.2.1", 5061)),
        ("sip:a@192.0.2.1;Transport=TLS", Endpoint("192.0.2.1", 5061)),
        ("sip:a@[2001:DB8::0:1]", Endpoint("2001:db8::1", 5060)),
        ("sip:a@[::ffff:192.0.2.1]:9", Endpoint("192.0.2.1", 9)),
        ("sip:a@example.com", None),
        ("sip:a@192.0.2.256", None),
        ("sip:a@" + "1" * 5000, None),
        ("tel:192.0.2.1", None),
    ],
)
def test_uri_endpoint(text: str, endpoint: Endpoint | None) -> None:
    assert Uri.parse(text).endpoint == endpoint


@pytest.mark.parametrize(
    ("text", "aor"),
    [
        ("sip:Alice:pw@Example.COM:5060;lr?x=y", "sip:Alice@example.com"),
        ("SIP:%75se%72@example.com", "sip:user@example.com"),
        ("sip:a%40b%3bc%zz%2f@h", "sip:a%40b%3Bc%zz%2F@h"),
        ("sip:null-%00-null@h", "sip:null-%00-null@h"),
        ("sip:EXAMPLE.com", "sip:example.com"),
        ("sips:a@[2001:DB8::1]:9", "sips:a@[2001:db8::1]"),
        ("tel:+1555;ext=1", "tel:+1555"),
    ],
)
def test_address_of_record(text: str, aor: str) -> None:
    assert Uri.parse(text).aor == aor


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (lambda u: u.with_host_port("192.0.2.9", 99), "sip:%61;b@h:1;lr?x", "sip:%61;b@192.0.2.9:99;lr?x"),
        (lambda u: u.with_host_port("192.0.2.9", None), "sip:a@h:1;lr", "sip:a@192.0.2.9;lr"),
        (lambda u: u.with_host_port("2001:db8::9", 5), "SIP:a@[::1]", "SIP:a@[2001:db8::9]:5"),
        (lambda u: u.with_host_port("[2001:db8::9]", 5), "sip:h?x=h", "sip:[2001:db8::9]:5?x=h"),
        (lambda u: u.with_param("ob"), f"sip:a@h;{INSTANCE}", f"sip:a@h;{INSTANCE};ob"),
        (lambda u: u.with_param("Transport", "tcp"), "sip:a@h;transport=UDP;lr?q", "sip:a@h;transport=tcp;lr?q"),
        (lambda u: u.with_param("x", "1"), "sip:a@h?q", "sip:a@h;x=1?q"),
        (lambda u: u.without_param("LR"), "sip:a;lr@h;lr;y", "sip:a;lr@h;y"),
        (lambda u: u.without_param("z"), "sip:a@h;lr", "sip:a@h;lr"),
    ],
)
def test_uri_edits(edit: Callable[[Uri], Uri], before: str, after: str) -> None:
    assert str(edit(Uri.parse(before))) == after
    assert edit(Uri.parse(before)) == Uri.parse(after)


def test_other_schemes_have_nothing_to_edit() -> None:
    uri = Uri.parse("tel:+1;x=y")
    with pytest.raises(SipError):
        uri.with_host_port("h", 1)
    with pytest.raises(SipError):
        uri.with_param("x")
    with pytest.raises(SipError):
        uri.without_param("x")


@pytest.mark.parametrize("host", ["a b", "a@b", "a:x", "h;x", "", "[", "a/b", "h:1", "h?x"])
def test_a_bad_new_host_is_refused(host: str) -> None:
    with pytest.raises(SipError):
        Uri.parse("sip:a@h").with_host_port(host, 1)


@given(values)
def test_lossless_or_our_error(text: str) -> None:
    try:
        value = Uri.parse(text)
    except SipError:
        return
    assert str(value) == text
    if not value.host:
        return
    edited = value.with_param("NEW", "1")
    assert edited.params["new"] == "1"
    assert str(edited.without_param("new")).rstrip(WS) == text.rstrip(WS)


@given(values, st.sampled_from(["192.0.2.77", "2001:db8::77", "example.org"]), st.sampled_from([None, 1, 65535]))
def test_a_new_host_leaves_all_else(text: str, host: str, port: int | None) -> None:
    try:
        uri = Uri.parse("sip:" + text)
    except SipError:
        return
    edited = uri.with_host_port(host, port)
    assert (edited.user, edited.password, edited.params.text, edited.headers) == (
        uri.user,
        uri.password,
        uri.params.text,
        uri.headers,
    )
    assert (edited.host.strip("[]"), edited.port) == (host, port)


@pytest.mark.parametrize(
    "evil",
    [
        "sip:" + "a@" * 30000,
        "sip:" + "a" * 60000 + "@",
        "sip:" + "@" * 60000,
        "sip:a@b" + ";" * 60000,
        "sip:a" + " " * 60000 + "x",
        'sip:a;"' * 8001,
        'sip:a;"' + "\\" * 60000,
    ],
    ids=range(7),
)
def test_long_evil_text_takes_no_time(evil: str) -> None:
    with quickly(), contextlib.suppress(SipError):
        assert str(Uri.parse(evil)) == evil

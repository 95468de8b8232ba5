import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.kamailio.location import LocationError, Registration, parse, removal


def contact(**fields: Any) -> dict[str, Any]:
    """One contact as Kamailio 5.6.3 lists it."""
    return {
        "Address": "sip:alice@10.0.0.1:5060;ob",
        "Expires": 599,
        "Q": -1,
        "Call-ID": "0123456789abcdef@10.0.0.1",
        "CSeq": 1,
        "User-Agent": "Telefon",
        "Received": "sip:203.0.113.9:40123",
        "Path": "[not set]",
        "State": "CS_NEW",
        "Flags": 0,
        "CFlags": 64,
        "Socket": "udp:192.0.2.1:5060",
        "Methods": 4294967295,
        "Ruid": "uloc-6b07d0b0-31b3-2",
        "Instance": "[not set]",
        "Reg-Id": 0,
        "Server-Id": 0,
        "Tcpconn-Id": -1,
        "Keepalive": 1,
        "Last-Keepalive": 1795674290,
        "KA-Roundtrip": 0,
        "Last-Modified": 1795674290,
    } | {name.replace("_", "-"): value for name, value in fields.items()}


def dump(*records: tuple[str, list[dict[str, Any]]], table: str = "location") -> bytes:
    """The answer to ul.dump as Kamailio writes it: text of phones is copied, whatever it is."""
    aors = [
        {"Info": {"AoR": aor, "HashID": 119, "Contacts": [{"Contact": one} for one in contacts]}}
        for aor, contacts in records
    ]
    domain = {"Domain": table, "Size": 512, "AoRs": aors, "Stats": {"Records": len(aors), "Max-Slots": 1}}
    answer = {"jsonrpc": "2.0", "result": {"Domains": [{"Domain": domain}]}, "id": 1}
    return json.dumps(answer, ensure_ascii=False, indent="\t").encode("latin-1")


def one(**fields: Any) -> Registration:
    """A single registration with those fields."""
    (registration,) = parse(dump(("alice", [contact(**fields)])))
    return registration


def test_everything_that_matters_is_read() -> None:
    read = one(Tcpconn_Id=7)
    assert (read.table, read.aor) == ("location", "alice")
    found = read.contact
    assert found.address == "sip:alice@10.0.0.1:5060;ob"
    assert found.received == "sip:203.0.113.9:40123"
    assert found.socket == "udp:192.0.2.1:5060"
    assert (found.connection, found.modified, found.ruid) == (7, 1795674290, "uloc-6b07d0b0-31b3-2")
    assert [number for number in range(32) if found.flag(number)] == [6]
    assert not found.flag(-1)


@pytest.mark.parametrize(
    ("expires", "seconds"), [(599, 599.0), (0, 0.0), ("permanent", float("inf")), ("expired", 0.0), ("deleted", 0.0)]
)
def test_how_long_a_contact_lives(expires: object, seconds: float) -> None:
    assert one(Expires=expires).contact.seconds_left() == seconds


def test_all_contacts_of_all_users_are_found() -> None:
    read = parse(dump(("alice", [contact(Ruid="1"), contact(Ruid="2")]), ("nobody", []), ("bob", [contact(Ruid="3")])))
    assert [(each.aor, each.contact.ruid) for each in read] == [("alice", "1"), ("alice", "2"), ("bob", "3")]
    assert parse(dump()) == []


@pytest.mark.parametrize("name", ["Address", "User-Agent", "Call-ID"])
@pytest.mark.parametrize("text", ["T\xe4st", "T\xc3\xa4st", "\xff\xfe", 'a"b\\c', "\x01\x1b\x7f"])
def test_text_of_one_phone_never_hides_the_others(name: str, text: str) -> None:
    read = parse(dump(("alice", [contact(**{name: text})]), ("bob", [contact(Ruid="bobs")])))
    assert [each.contact.ruid for each in read] == ["uloc-6b07d0b0-31b3-2", "bobs"]
    assert name != "Address" or read[0].contact.address == text


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ul.dump"),
        (b"{", "ul.dump"),
        (b'{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":1}', "Method Not Found"),
        (b'{"jsonrpc":"2.0","id":1}', "no result"),
        (b'{"result":{"Domains":7}}', "Domains"),
    ],
)
def test_what_is_no_list_is_told(answer: bytes, why: str) -> None:
    with pytest.raises(LocationError, match=why):
        parse(answer)


@given(st.binary())
def test_no_answer_raises_anything_else(answer: bytes) -> None:
    with contextlib.suppress(LocationError):
        parse(answer)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_a_contact_is_removed_by_its_own_bytes(text: str) -> None:
    (registration,) = parse(dump((text, [contact(Address=text)])))
    call = json.loads(removal(registration).decode("latin-1"))
    assert (call["method"], call["params"]) == ("ul.rm_contact", ["location", text, text])

"""Who may ask at a door."""

import pytest

from mediaproxy.access import AccessList


@pytest.mark.parametrize(
    ("allow", "address", "admitted"),
    [
        ((), "127.0.0.1", True),
        ((), "127.9.9.9", True),
        ((), "::1", True),
        ((), "192.0.2.1", False),
        ((), "2001:db8::1", False),
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        (("192.0.2.1",), "127.0.0.1", False),
        (("192.0.2.0/24", "10.0.0.0/8"), "10.1.2.3", True),
        (("192.0.2.77/24",), "192.0.2.1", True),
        (("2001:db8::/32",), "2001:db8:1::5", True),
        (("2001:db8::/32",), "192.0.2.1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.9", True),
        (("::ffff:192.0.2.9",), "192.0.2.9", True),
        (("::ffff:192.0.2.0/120",), "::ffff:192.0.2.7", True),
        (("::ffff:192.0.2.0/120",), "192.0.3.7", False),
        (("::/0",), "192.0.2.7", False),
        (("0.0.0.0/0",), "203.0.113.9", True),
        (("0.0.0.0/0",), "nonsense", False),
        (("0.0.0.0/0",), "", False),
    ],
)
def test_who_may_ask(allow: tuple[str, ...], address: str, admitted: bool) -> None:
    access = AccessList(allow)
    assert access.admits(address) is admitted
    assert access.admits(address) is admitted


def test_a_flood_of_addresses_does_not_stay() -> None:
    access = AccessList(("10.0.0.0/9",))
    for number in range(20_000):
        assert access.admits(f"10.{number >> 8}.{number & 255}.1") is (number >> 8 < 128)
    assert len(access._known) <= 4096


def test_what_is_no_prefix() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        AccessList(("example.com",))

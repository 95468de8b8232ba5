"""Who is registered, as Kamailio's RPC ``ul.dump`` lists it, and the RPC that takes one contact out.

The RPC's answer comes in, registrations go out. Text of phones is Latin-1 (one character per byte) whatever encoding it
was meant in. Of this file's Structs only those fields are decoded that somebody needs: ten thousand contacts are nine
megabytes of JSON.
"""

import msgspec

NOT_SET = "[not set]"
"What Kamailio writes for a field that has no value."
DUMP = '{"jsonrpc":"2.0","method":"ul.dump","id":1}'
"The RPC whose answer ``parse`` reads."


class LocationError(ValueError):
    """Kamailio does not say who is registered; the text says why."""


class Contact(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One registered contact."""

    address: str = msgspec.field(name="Address")
    "The URI in the phone's Contact."
    expires: int | str = msgspec.field(name="Expires")
    "Seconds left; ``permanent``, or ``expired`` or ``deleted`` until Kamailio has cleaned up."
    received: str = msgspec.field(name="Received", default=NOT_SET)
    "The URI of where the REGISTER came from, if it came from behind a NAT."
    path: str = msgspec.field(name="Path", default=NOT_SET)
    "The Path header of the REGISTER (RFC 3327)."
    cflags: int = msgspec.field(name="CFlags", default=0)
    "The branch flags that were set when it was saved: bit n is flag n."
    socket: str = msgspec.field(name="Socket", default=NOT_SET)
    "Our socket to which the REGISTER came, such as ``udp:192.0.2.1:5060``."
    ruid: str = msgspec.field(name="Ruid", default=NOT_SET)
    "Kamailio's own name of the record."
    connection: int = msgspec.field(name="Tcpconn-Id", default=-1)
    "Kamailio's number of the connection on which the REGISTER came; -1: UDP."
    modified: int = msgspec.field(name="Last-Modified", default=0)
    "When the last REGISTER for it came, seconds since the epoch."

    def seconds_left(self) -> float:
        """Seconds until it expires; 0 if it has."""
        if isinstance(self.expires, int):
            return float(self.expires)
        return float("inf") if self.expires == "permanent" else 0.0

    def flag(self, number: int) -> bool:
        """Whether a branch flag was set; no flag has a negative number."""
        return number >= 0 and bool(self.cflags >> number & 1)


class Registration(msgspec.Struct, frozen=True, gc=False):
    """A contact, and whose it is."""

    table: str
    "Kamailio's location table."
    aor: str
    "The address of record as Kamailio keeps it: without scheme; without domain unless usrloc has ``use_domain``."
    contact: Contact


class _OneContact(msgspec.Struct, frozen=True, gc=False):
    contact: Contact = msgspec.field(name="Contact")


class _Record(msgspec.Struct, frozen=True, gc=False):
    aor: str = msgspec.field(name="AoR")
    contacts: list[_OneContact] = msgspec.field(name="Contacts")


class _OneRecord(msgspec.Struct, frozen=True, gc=False):
    record: _Record = msgspec.field(name="Info")


class _Table(msgspec.Struct, frozen=True, gc=False):
    name: str = msgspec.field(name="Domain")
    records: list[_OneRecord] = msgspec.field(name="AoRs")


class _OneTable(msgspec.Struct, frozen=True, gc=False):
    table: _Table = msgspec.field(name="Domain")


class _Result(msgspec.Struct, frozen=True, gc=False):
    tables: list[_OneTable] = msgspec.field(name="Domains")


class _Fault(msgspec.Struct, frozen=True, gc=False):
    message: str = ""


class _Answer(msgspec.Struct, frozen=True, gc=False):
    result: _Result | None = None
    error: _Fault | None = None


_DECODER = msgspec.json.Decoder(_Answer)


def parse(answer: bytes) -> list[Registration]:
    """Read the answer to DUMP. LocationError if there is none, or it is an error of Kamailio's."""
    try:
        # JSON has to be UTF-8, but Kamailio copies what phones wrote.
        read = _DECODER.decode(answer if answer.isascii() else answer.decode("latin-1"))
    except msgspec.DecodeError as error:
        raise LocationError(f"ul.dump: {error}") from None
    if read.result is None:
        raise LocationError(f"ul.dump: {read.error.message if read.error else 'no result'}")
    return [
        Registration(one.table.name, each.record.aor, contact.contact)
        for one in read.result.tables
        for each in one.table.records
        for contact in each.record.contacts
    ]


def removal(registration: Registration) -> bytes:
    """The RPC that takes a contact out of Kamailio's location table."""
    params = [registration.table, registration.aor, registration.contact.address]
    call = {"jsonrpc": "2.0", "method": "ul.rm_contact", "params": params, "id": 1}
    return msgspec.json.encode(call).decode().encode("latin-1")

"""Far-end NAT diagnosis and repair: is the sender of a message behind a NAT, and what must change so that it can be
answered and called back?

A message and how it arrived come in; verdicts with their reasons, or the repaired message, go out. Only the top Via's
received and rport, the host, port and alias of Contact URIs, and the alias of a Request-URI are ever changed. Nothing
here resolves names, sends, or raises for what a peer wrote (handle_ruri_alias does, for a broken alias): a value that
cannot be read is a value that no test fires for and no repair touches.
"""

from mediaproxy.nat.address import is_rfc1918
from mediaproxy.nat.alias import Unaliased, add_contact_alias, handle_ruri_alias
from mediaproxy.nat.arrival import Arrival, Verdict
from mediaproxy.nat.contact import contacts, fix_contact, fix_uri
from mediaproxy.nat.keepalive import PING_SOON, TCP_PING, TCP_PONG, UDP_PING, is_keep_alive
from mediaproxy.nat.named import NAMED_TESTS, named_tests, nat_test
from mediaproxy.nat.nathelper import nat_uac_flags, nat_uac_test
from mediaproxy.nat.original import CONTACT_PRIVATE, SOURCE_DIFFERS, VIA_PRIVATE, client_nat_test, nat_tests
from mediaproxy.nat.source import force_rport, note_source

__all__ = [
    "CONTACT_PRIVATE",
    "NAMED_TESTS",
    "PING_SOON",
    "SOURCE_DIFFERS",
    "TCP_PING",
    "TCP_PONG",
    "UDP_PING",
    "VIA_PRIVATE",
    "Arrival",
    "Unaliased",
    "Verdict",
    "add_contact_alias",
    "client_nat_test",
    "contacts",
    "fix_contact",
    "fix_uri",
    "force_rport",
    "handle_ruri_alias",
    "is_keep_alive",
    "is_rfc1918",
    "named_tests",
    "nat_test",
    "nat_tests",
    "nat_uac_flags",
    "nat_uac_test",
    "note_source",
]

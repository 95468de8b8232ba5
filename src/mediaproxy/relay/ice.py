"""The relay as an ICE lite agent (RFC 8445 §2.5, §7.3): it answers connectivity checks, and never makes one.

A datagram that looks like STUN, its source and the relay's credentials come in; what to answer goes out, and whether
that source is the party's by force of the password, and nominated. A lite agent is always controlled.
"""

import random
import string

import msgspec
from msgspec.structs import replace

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.stun import (
    BINDING,
    Attribute,
    Class,
    Message,
    encode,
    error_code,
    parse,
    unknown_attributes,
    xor_address,
)

_CHARACTERS = string.ascii_letters + string.digits + "+/"
"ice-char of RFC 8839 §5.4."
_UFRAG, _PASSWORD = 8, 24
"Characters: RFC 8839 §5.4 wants 4 and 22 at least; 6 bits each."
_USERNAME = 508
"Bytes at most (RFC 8489 §14.3)."
_KNOWN = frozenset((Attribute.USERNAME, Attribute.PRIORITY, Attribute.USE_CANDIDATE))
_MUST_UNDERSTAND = 0x8000
"RFC 8489 §14: attributes below it."


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """What the relay shows one party of a call."""

    ufrag: str
    password: str
    tag: str = ""
    "Of the party that they are for now."
    theirs: str = ""
    "Its own user name, as far as it is known."
    former: "Credentials | None" = None
    "From before it began ICE anew: it uses these until it is shown the others."

    @classmethod
    def make(cls, rng: random.Random) -> "Credentials":
        """New ones."""
        return cls("".join(rng.choices(_CHARACTERS, k=_UFRAG)), "".join(rng.choices(_CHARACTERS, k=_PASSWORD)))

    def towards(self, tag: str, theirs: str, rng: random.Random) -> "Credentials":
        """Those for a party with that user name: others if it had another one before, for then ICE begins anew (RFC
        8445 §9, RFC 8839 §4.4.3.2); if it takes that back, those that it had."""
        if not theirs or (tag, theirs) == (self.tag, self.theirs):
            return self
        if not self.theirs or tag != self.tag:  # another phone of a fork, who all are shown the same
            return replace(self, tag=tag, theirs=theirs)
        before = replace(self, former=None)
        if self.former is not None and self.former.theirs == theirs:
            return replace(self.former, tag=tag, former=before)
        return replace(self.make(rng), tag=tag, theirs=theirs, former=before)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a datagram."""

    answer: bytes = b""
    "To be sent back to where it came from; empty: nothing."
    valid: bool = False
    "Its sender knows the password."
    nominated: bool = False
    "And wants media to go this way (RFC 8445 §7.3.1.5)."
    ufrag: str = ""
    "Of the sender, as the username says."
    why: str = ""
    "It was refused, in words for an operator."


_IGNORED = Check(why="sends STUN that is no connectivity check")


def check(data: bytes, source: Endpoint, own: Credentials) -> Check:
    """Process a datagram as RFC 8489 §6.3 and RFC 8445 §7.3 say. Nothing is answered that has no right FINGERPRINT, nor
    what is no binding request."""
    request = parse(data)
    if request is None or request.method != BINDING or not request.fingerprint:
        return _IGNORED
    if request.kind is Class.INDICATION:  # a keep-alive, which nothing must be done about (RFC 8445 §11)
        return Check(valid=request.authentic(own.password.encode()))
    if request.kind is not Class.REQUEST:
        return _IGNORED
    username = request.value(Attribute.USERNAME)
    if username is None or len(username) > _USERNAME or request.integrity is None:
        return Check(answer=_error(request, 400, "Bad Request"), why="sends a connectivity check without password")
    name, _, ufrag = username.decode("latin-1").partition(":")
    if own.former is not None and name == own.former.ufrag:
        own = own.former
    if name != own.ufrag or not request.authentic(own.password.encode()):
        return Check(
            answer=_error(request, 401, "Unauthorized"), why="sends a connectivity check with a wrong password"
        )
    return _answer(request, source, own, ufrag)


def _answer(request: Message, source: Endpoint, own: Credentials, ufrag: str) -> Check:
    """To somebody who knows the password."""
    password = own.password.encode()
    unknown = [name for name, _ in request.attributes if name < _MUST_UNDERSTAND and name not in _KNOWN]
    if unknown:
        more = ((int(Attribute.UNKNOWN_ATTRIBUTES), unknown_attributes(unknown)),)
        return Check(answer=_error(request, 420, "Unknown Attribute", more, password))
    if request.value(Attribute.ICE_CONTROLLED) is not None:  # RFC 8445 §7.3.1.1: it must take the other role
        return Check(answer=_error(request, 487, "Role Conflict", (), password))
    mapped = xor_address(source, request.transaction)
    response = Message(
        kind=Class.SUCCESS,
        transaction=request.transaction,
        attributes=((int(Attribute.XOR_MAPPED_ADDRESS), mapped),),
    )
    return Check(
        answer=encode(response, password),
        valid=True,
        nominated=request.value(Attribute.USE_CANDIDATE) is not None,
        ufrag=ufrag,
    )


def _error(
    request: Message,
    code: int,
    reason: str,
    more: tuple[tuple[int, bytes], ...] = (),
    password: bytes | None = None,
) -> bytes:
    attributes = ((int(Attribute.ERROR_CODE), error_code(code, reason)), *more)
    return encode(Message(kind=Class.ERROR, transaction=request.transaction, attributes=attributes), password)

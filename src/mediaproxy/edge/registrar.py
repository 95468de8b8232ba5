"""What a REGISTER does (RFC 3261 §10.3, with Path of RFC 3327 and outbound of RFC 5626).

A request as the routing script leaves it, its source and the user's bindings come in; the answer and the changes to
make come out. All of a request's contacts are taken or none. It must never touch the table itself, ask a clock, or
decide who the user is: the edge has checked domain and password before. Nor does it judge whether there is a NAT: the
script has fixed the contacts and set flags.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from mediaproxy.edge.binding import Binding, canonical_aor, same_uri
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.nat import Arrival
from mediaproxy.sip.grammar import SipError, seconds, unfold, unquote
from mediaproxy.sip.header import NameAddr, Uri
from mediaproxy.sip.message import Request

EXTENSIONS = ("path", "outbound")
"Option tags that the registrar understands in Require and Supported."


@dataclass(frozen=True, slots=True, kw_only=True)
class Registering:
    """A REGISTER as the routing script leaves it."""

    request: Request
    "With the Contacts that requests are to be sent to: fixed, if there is a NAT between."
    arrived: Request
    "As it came, with the Contacts as the phone wrote them: answers list these."
    flags: frozenset[int] = frozenset()
    "What the script has set: see ``EdgeSettings.nat_flag`` and its like."
    asymmetric: bool = False
    "The phone is on the list of SIP-asymmetric clients."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to a REGISTER, and what must be in the table before it is sent."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    "Besides those that every response copies from its request."
    save: tuple[Binding, ...] = ()
    remove: tuple[Binding, ...] = ()
    "To be removed before ``save`` is saved; unchanged bindings are in neither."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """One Contact of the request, read."""

    sent: NameAddr
    uri: Uri
    "The URI to send to."
    expires: int
    q: float
    instance: str
    reg_id: str


class _Refusal(Exception):
    """The request is answered with this and changes nothing."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.outcome = Outcome(status=status, reason=reason, headers=headers)


@dataclass(frozen=True, slots=True)
class _Registration:
    """A REGISTER with all that is known about it."""

    request: Request
    "As it came."
    asked: Registering
    arrival: Arrival
    settings: EdgeSettings
    now: float
    connection: str
    aor: str
    path: tuple[str, ...]
    outbound: bool
    "The phone and its first hop do RFC 5626: reg-id counts."


def register(
    asked: Registering,
    arrival: Arrival,
    bindings: Iterable[Binding],
    settings: EdgeSettings,
    now: float,
    connection: str = "",
) -> Outcome:
    """Judge a REGISTER.

    ``bindings`` are those of ``aor_of(asked.arrived)`` at present; ``connection`` names the TCP or TLS connection that
    it came over. SipError if the request is broken; its status is the answer.
    """
    request = asked.arrived
    current = tuple(b for b in bindings if b.expires > now)
    try:
        _check_required(request)
        registration = _Registration(
            request,
            asked,
            arrival,
            settings,
            now,
            connection,
            aor_of(request),
            _path(request),
            _outbound(request),
        )
        if any(contact.star for contact in request.contacts):
            _check_star(request)
            for binding in current:
                _check_order(binding, request)
            return _answer(registration, (), (), current)
        return _update(registration, current)
    except _Refusal as refusal:
        return refusal.outcome


def aor_of(request: Request) -> str:
    """The address of record that a REGISTER is about, in canonical form: its To. SipError if it is none."""
    return canonical_aor(request.to.uri)


def _update(registration: _Registration, current: tuple[Binding, ...]) -> Outcome:
    wishes = _wishes(registration)
    save: list[Binding] = []
    remove: list[Binding] = []
    for wish, old in zip(wishes, _match(wishes, current, registration), strict=True):
        if old is not None:
            _check_order(old, registration.request)
        new = _binding(registration, wish) if wish.expires else None
        if old is not None and (new is None or new.key != old.key):
            remove.append(old)
        if new is not None:
            save.append(new)
    touched = {b.key for b in (*save, *remove)}
    kept = tuple(b for b in current if b.key not in touched)
    evicted = _make_room(registration.settings.limits.contacts, kept, save)
    return _answer(registration, tuple(b for b in kept if b not in evicted), save, (*remove, *evicted))


def _answer(
    registration: _Registration, kept: Sequence[Binding], save: Sequence[Binding], remove: Sequence[Binding]
) -> Outcome:
    """RFC 3261 §10.3 step 8: 200 with every binding that now exists, each as its phone wrote it."""
    now = registration.now
    headers = [
        ("Contact", str(NameAddr.parse(b.sent).with_param("expires", str(b.remaining(now))))) for b in (*kept, *save)
    ]
    headers += [("Path", value) for value in registration.path]  # RFC 3327 §5.3: echoed in the same order
    if registration.outbound and save:
        headers.append(("Require", "outbound"))  # RFC 5626 §6: or the phone would not know
    headers.append(("Supported", ", ".join(EXTENSIONS)))
    headers.append(("Date", formatdate(now, usegmt=True)))
    return Outcome(status=200, reason="OK", headers=tuple(headers), save=tuple(save), remove=tuple(remove))


# Checks of the whole request


def _options(request: Request, name: str) -> list[str]:
    return [option.lower() for option in request.values(name)]


def _check_required(request: Request) -> None:
    # RFC 3261 §10.3 step 2
    unknown = [option for option in _options(request, "Require") if option not in EXTENSIONS]
    if unknown:
        raise _Refusal(420, "Bad Extension", ("Unsupported", ", ".join(unknown)))


def _check_star(request: Request) -> None:
    # RFC 3261 §10.3 step 6
    if len(request.contacts) > 1:
        raise SipError("Contact: * must stand alone")
    if request.expires != 0:
        raise SipError("Contact: * needs Expires: 0")


def _check_order(binding: Binding, request: Request) -> None:
    # RFC 3261 §10.3 step 7: of one Call-ID only a higher CSeq may change a binding
    if binding.call_id == request.call_id and request.cseq.number <= binding.cseq:
        raise _Refusal(500, "CSeq Out Of Order")


def _path(request: Request) -> tuple[str, ...]:
    path = request.values("Path")
    if path and "path" not in _options(request, "Supported"):
        # RFC 3327 §5.3: the recommended policy; the phone could not see that its calls take another way
        raise _Refusal(420, "Bad Extension", ("Unsupported", "path"))
    for value in path:
        NameAddr.parse(value)
    return path


def _outbound(request: Request) -> bool:
    """Whether reg-id counts (RFC 5626 §6): the phone can, asks for it, and its first hop can."""
    if "outbound" not in _options(request, "Supported") or not any("reg-id" in c.params for c in request.contacts):
        return False
    if len(request.vias) > 1:
        path = request.values("Path")
        if not path or "ob" not in NameAddr.parse(path[-1]).uri.params:
            raise _Refusal(439, "First Hop Lacks Outbound Support")
    return True


# Contacts


def _wishes(registration: _Registration) -> list[_Wish]:
    request = registration.request
    header = request.expires
    targets = _targets(registration)
    contacts = request.contacts
    if len(contacts) != len(targets):  # the script has put Contacts in or taken them out
        contacts = registration.asked.request.contacts
    wishes: list[_Wish] = []
    for contact, uri in zip(contacts, targets, strict=True):
        _check_contact(contact)
        own = seconds(contact.params.get("expires"))
        instance = unquote(contact.params.get("+sip.instance", ""))
        wish = _Wish(
            sent=NameAddr.parse(unfold(str(contact))).without_param("expires"),
            uri=uri,
            expires=_granted(own if own is not None else header, registration.settings),
            q=_preference(contact.params.get("q")),
            instance=instance,
            reg_id=contact.params.get("reg-id", "") if registration.outbound and instance else "",
        )
        if not any(_same_uri(wish, other) for other in wishes):
            wishes.append(wish)
    return wishes


def _same_uri(one: _Wish, other: _Wish) -> bool:
    return same_uri(one.sent.uri, other.sent.uri) and (one.instance, one.reg_id) == (other.instance, other.reg_id)


def _check_contact(contact: NameAddr) -> None:
    if contact.uri.scheme not in ("sip", "sips"):
        raise SipError(f"Contact: the scheme {contact.uri.scheme[:20]} is not sip or sips", 416)
    if contact.uri.port == 0:
        raise SipError("Contact: port 0")
    if contact.uri.headers and not contact.bracketed:
        raise SipError("Contact: a URI with ? needs angle brackets")  # RFC 3261 §20.10


def _granted(wanted: int | None, settings: EdgeSettings) -> int:
    # RFC 3261 §10.3 step 7
    expiry = settings.expiry
    if wanted is None:
        wanted = expiry.default
    if 0 < wanted < expiry.minimum:
        raise _Refusal(423, "Interval Too Brief", ("Min-Expires", str(expiry.minimum)))
    return min(wanted, expiry.maximum)


def _preference(text: str | None) -> float:
    try:
        value = float(text) if text else 1.0
    except ValueError:
        return 1.0
    return value if 0.0 <= value <= 1.0 else 1.0


def _targets(registration: _Registration) -> list[Uri]:
    """The URIs to send to, one per Contact."""
    # RFC 3261 §19.1.1: headers of a URI have no place in a Request-URI
    return [Uri.parse(c.uri.text[: c.uri.headers_at]) for c in registration.asked.request.contacts]


def _binding(registration: _Registration, wish: _Wish) -> Binding:
    request, arrival = registration.request, registration.arrival
    asked, settings = registration.asked, registration.settings
    return Binding(
        aor=registration.aor,
        contact=str(wish.uri),
        sent=str(wish.sent),
        received=arrival.source,
        transport=arrival.transport,
        local=arrival.local,
        path=registration.path,
        expires=registration.now + wish.expires,
        q=wish.q,
        call_id=request.call_id,
        cseq=request.cseq.number,
        user_agent=request.user_agent,
        instance=wish.instance,
        reg_id=wish.reg_id,
        connection=registration.connection if arrival.transport != "udp" else "",
        nat=settings.nat_flag in asked.flags,
        sip_ping=settings.sip_natping_flag in asked.flags,
        remove_lost=settings.sipping_remove_flag in asked.flags,
        asymmetric=asked.asymmetric,
    )


# Which binding a contact refreshes


def _match(wishes: Sequence[_Wish], current: Sequence[Binding], registration: _Registration) -> list[Binding | None]:
    """For each wish the binding that it replaces. Each binding is taken once; the surest signs go first."""
    taken: dict[int, Binding] = {}
    for same in (_same_flow, _same_contact, _same_instance):
        for at, wish in enumerate(wishes):
            if at not in taken:
                free = (b for b in current if b not in taken.values() and same(wish, b, registration))
                if (found := next(free, None)) is not None:
                    taken[at] = found
    return [taken.get(at) for at in range(len(wishes))]


def _same_flow(wish: _Wish, binding: Binding, _: _Registration) -> bool:
    # RFC 5626 §6: instance and reg-id name a flow, whatever its contact is now
    return bool(wish.reg_id) and (binding.instance, binding.reg_id) == (wish.instance, wish.reg_id)


def _same_contact(wish: _Wish, binding: Binding, registration: _Registration) -> bool:
    """The phone's own URI is the same, and nothing says that it is another phone.

    RFC 3261 compares URIs only; but two phones of a user, in two homes on the same LAN addresses, write the same one.
    """
    if wish.reg_id or binding.reg_id or not same_uri(NameAddr.parse(binding.sent).uri, wish.sent.uri):
        return False
    if wish.instance and binding.instance:
        return wish.instance == binding.instance
    return (
        binding.call_id == registration.request.call_id
        or binding.received.address == registration.arrival.source.address
        or binding.contact == str(wish.uri)
    )


def _same_instance(wish: _Wish, binding: Binding, _: _Registration) -> bool:
    # A phone that moved: the brackets of GRUU (RFC 5627 §4) tell its contacts apart no better
    return bool(wish.instance) and not wish.reg_id and (binding.instance, binding.reg_id) == (wish.instance, "")


def _make_room(limit: int, kept: Sequence[Binding], save: Sequence[Binding]) -> tuple[Binding, ...]:
    """Contacts that nobody can reach any more make room for new ones; living ones never do."""
    excess = len(kept) + len(save) - limit
    if excess <= 0 or not save:
        return ()
    lost = sorted((b for b in kept if not b.reachable), key=lambda b: b.expires)[:excess]
    if len(lost) < excess:
        raise _Refusal(403, "Too Many Contacts")
    return tuple(lost)

"""Who may do what (calls.md 19): passwords, trusted proxies, own and foreign targets.

A request and where it came from come in; permission or a refusal goes out. What is remembered is only which digest
nonces were used. Nothing here looks anybody up or sends.
"""

import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from mediaproxy.edge.domains import Domains, is_private
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.routing import Refusal
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import ip_address
from mediaproxy.sip.digest import Account, Credentials, Realm, Replays, Verdict, verify
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The request may go on."""

    request: Request
    "Without the credentials that were for us (RFC 3261 §22.3)."
    privileged: bool
    "It may leave for foreign hosts: an account, a trusted proxy, or the mark of its dialog stands for it."
    routes: bool = True
    "If nobody is registered there, the configured routes (gateways) may be used."
    account: Account | None = None
    "Who it is, if a password was given."


def trusted(source: str, prefixes: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address is in one of the prefixes."""
    address = ipaddress.ip_address(source)
    return any(address.version == prefix.version and address in prefix for prefix in prefixes)


class Gate:
    """Judges every request that begins something."""

    def __init__(self, settings: EdgeSettings, domains: Domains, key: bytes, rng: random.Random) -> None:
        """``key``: of the digest nonces."""
        self._domains = domains
        self._rng = rng
        self._replays: Replays | None = None
        self._prefixes = tuple(ipaddress.ip_network(text, strict=False) for text in settings.trusted_proxies)
        self._trusted = lru_cache(maxsize=4096)(lambda source: trusted(source, self._prefixes))
        self._accounts = {(account.username, account.domain.lower()) for account in settings.accounts}
        self._users = {user for user, _ in self._accounts}
        self.realm: Realm | None = None
        if settings.accounts:
            name = settings.realm or next(iter(settings.domains), "mediaproxy")
            self.realm = Realm(name, settings.accounts, key, settings.algorithms)

    def is_trusted(self, source: str) -> bool:
        """Whether a configured proxy is at this address."""
        return bool(self._trusted(source))

    def knows(self, aor: Uri) -> bool:
        """Whether there may be such a user: always, where nobody has an account."""
        if self.realm is None:
            return True
        user = unquote_to_bytes((aor.user or "").encode("latin-1")).decode("utf-8", "replace")
        if ip_address(aor.host) is not None:
            return user in self._users
        return bool(self._accounts & {(user, ""), (user, aor.host.lower())})

    def lenient(self, inbound: Inbound) -> bool:
        """Whether nobody has an account, and only a private network can be the source."""
        return self.realm is None and is_private(inbound.source.address)

    def challenge(self, now: float) -> Refusal:
        """Ask for a password. Only with accounts."""
        assert self.realm is not None
        return self._challenge(self.realm, "Proxy-Authorization", False, "", now)

    def judge(self, request: Request, inbound: Inbound, marked: bool, now: float) -> Pass | Refusal:
        """A request that is not REGISTER, ACK or CANCEL, its Route already stripped. ``marked``: it carries the mark of
        its dialog."""
        if marked or self.is_trusted(inbound.source.address):
            return Pass(request=request, privileged=True)
        foreign = bool(request.routes) or not self._domains.owns(request.uri)
        if self.realm is None:
            private = is_private(inbound.source.address)
            if foreign and not private:
                return Refusal(status=403, why="a foreign target, and nobody has an account here")
            return Pass(request=request, privileged=False, routes=private)
        if not foreign and not self._from_us(request) and not _offered(request, self.realm):
            return Pass(request=request, privileged=False, routes=False)
        return self._authenticate(request, self.realm, "Proxy-Authorization", request.from_.uri, now)

    def judge_register(self, request: Request, inbound: Inbound, now: float) -> Pass | Refusal:
        """A REGISTER: the domain must be ours, the user must be who it says (RFC 3261 §10.3 steps 3 to 5)."""
        target = request.to.uri
        if not self._domains.may_register(target, inbound.source):
            status = 404 if self._domains.owns(request.uri) else 403
            return Refusal(status=status, why=f"REGISTER in {target.host[:80]}, which is not ours")
        if self.realm is None or self.is_trusted(inbound.source.address):
            return Pass(request=request, privileged=True)
        return self._authenticate(request, self.realm, "Authorization", target, now)

    def _from_us(self, request: Request) -> bool:
        uri = request.from_.uri
        return self._domains.owns(uri) or uri.host.lower() in self._domains.hosts

    def _authenticate(self, request: Request, realm: Realm, header: str, identity: Uri, now: float) -> Pass | Refusal:
        ours = header == "Authorization" or self._from_us(request)
        replays = self._used(now)
        outcome = verify(
            request.headers(header), request.method, realm, replays, now, lambda one: _is(one, identity, ours)
        )
        if outcome.verdict is not Verdict.GRANTED:
            denied = outcome.why if outcome.verdict is Verdict.DENIED else ""
            return self._challenge(realm, header, outcome.verdict is Verdict.STALE, denied, now)
        account = outcome.account
        assert account is not None
        if not _is(account, identity, ours):
            return Refusal(
                status=403, reason="Not Your Address", why=f"{account.username} says it is {identity.text[:80]}"
            )
        request = _without_credentials(request, header, realm)
        return Pass(request=request, privileged=True, account=account)

    def _used(self, now: float) -> Replays:
        """What was used of nonces. Those of an earlier run, which had the same key, may have been used there."""
        if self._replays is None:
            self._replays = Replays(since=now - 0.002)  # nonces say when they were made in whole milliseconds
        return self._replays

    def _challenge(self, realm: Realm, header: str, stale: bool, why: str, now: float) -> Refusal:
        self._used(now).expire(now - realm.lifetime)
        status, name = (401, "WWW-Authenticate") if header == "Authorization" else (407, "Proxy-Authenticate")
        salt = f"{self._rng.getrandbits(64):016x}"
        headers = tuple((name, value) for value in realm.challenges(now, salt, stale))
        return Refusal(status=status, headers=headers, why=why)


def _is(account: Account, uri: Uri, ours: bool) -> bool:
    """Whether the account may use the address. A foreign address in From is the user's own business, as long as the
    password says who pays."""
    if not ours:
        return True
    user = unquote_to_bytes((uri.user or "").encode("latin-1"))
    if user != account.username.encode():
        return False
    # Phones may know the server by its number instead of its domain.
    return not account.domain or account.domain.lower() == uri.host.lower() or ip_address(uri.host) is not None


def _offered(request: Request, realm: Realm) -> bool:
    """Whether there are credentials for us."""
    for value in request.headers("Proxy-Authorization"):
        try:
            credentials = Credentials.parse(value)
        except SipError:
            continue  # it may be somebody else's
        if credentials is not None and realm.owns(credentials):
            return True
    return False


def _without_credentials(request: Request, header: str, realm: Realm) -> Request:
    for index in reversed(range(len(request.headers(header)))):
        try:
            credentials = Credentials.parse(request.headers(header)[index])
        except SipError:
            continue
        if credentials is not None and realm.owns(credentials):
            request = request.remove_value(header, index)
    return request

"""Digest access authentication for SIP (RFC 7616, RFC 8760; RFC 3261 §22), server side.

Header values come in, a verdict and the challenges to send go out. Nonces are stateless: a time stamp and a salt under
an HMAC, so any number of workers with one key accept each other's. It must never keep a password in an error text, ask
the clock, or take a nonce count twice.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

import msgspec

from mediaproxy.sip.grammar import SipError


class Algorithm(StrEnum):
    """Hash of the digest, weakest first (RFC 8760 §2.1)."""

    MD5 = "MD5"
    SHA_256 = "SHA-256"
    SHA_512_256 = "SHA-512-256"

    @property
    def hex_length(self) -> int:
        """Length of a hash of this algorithm in hexadecimal digits."""
        return 32 if self is Algorithm.MD5 else 64


_HASHLIB = {Algorithm.MD5: "md5", Algorithm.SHA_256: "sha256", Algorithm.SHA_512_256: "sha512_256"}
_STRONGEST_FIRST = (Algorithm.SHA_512_256, Algorithm.SHA_256, Algorithm.MD5)


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user who may register and call."""

    username: str
    "The user part of the address, and the name that the phone authenticates with."
    domain: str = ""
    "The domain it belongs to; empty: every own domain."
    password: str = ""
    "In plain text. Empty if ``ha1`` is given instead."
    ha1: dict[Algorithm, str] = {}
    """Hashes of ``username:realm:password`` in hexadecimal, by algorithm, instead of a plain password. Only algorithms
    that every account of a realm can answer are offered."""

    def secret(self, algorithm: Algorithm, realm: str) -> str | None:
        """HA1 of this account, or None if it cannot be had for ``algorithm``."""
        if algorithm in self.ha1:
            return self.ha1[algorithm].lower()
        if not self.password:
            return None
        return digest(algorithm, f"{self.username}:{realm}:{self.password}".encode())


def digest(algorithm: Algorithm, data: bytes) -> str:
    """The hash in lower-case hexadecimal; SHA-512-256 is that of FIPS 180-4 (RFC 7616 erratum 4897)."""
    return hashlib.new(_HASHLIB[algorithm], data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an Authorization or Proxy-Authorization header says; text as on the wire (Latin-1), unquoted."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: Algorithm | None
    "None: one that we never offer, such as MD5-sess."
    cnonce: str
    nc: str
    userhash: bool
    "``username`` is a hash of username and realm (RFC 7616 §3.4.4)."

    @classmethod
    def parse(cls, value: str) -> "Credentials | None":
        """The credentials of one header value; None if the scheme is not Digest. SipError if it is broken."""
        scheme, _, rest = value.strip().partition(" ")
        if scheme.lower() != "digest":
            return None
        params = _parse_params(rest)
        # RFC 7616 §3.4 wants qop in every answer to a challenge that has it; without it there is no replay check.
        for name in ("realm", "nonce", "uri", "response", "qop", "nc", "cnonce"):
            if name not in params:
                raise SipError(f"Authorization: no {name} parameter")
        if params["qop"].lower() != "auth":
            raise SipError("Authorization: qop is not auth")
        if not re.fullmatch(r"[0-9A-Fa-f]{8}", params["nc"]):
            raise SipError("Authorization: nc is not 8 hexadecimal digits")
        return cls(
            username=_username(params),
            realm=params["realm"],
            nonce=params["nonce"],
            uri=params["uri"],
            response=params["response"],
            algorithm=_algorithm(params.get("algorithm", "MD5")),
            cnonce=params["cnonce"],
            nc=params["nc"],
            userhash=params.get("userhash", "").lower() == "true",
        )

    def expected(self, algorithm: Algorithm, secret: str, method: str) -> str:
        """The response that who knows HA1 ``secret`` would have sent for ``method`` (RFC 7616 §3.4.1, qop=auth)."""
        ha2 = digest(algorithm, f"{method}:{self.uri}".encode("latin-1"))
        text = f"{secret}:{self.nonce}:{self.nc}:{self.cnonce}:auth:{ha2}"
        return digest(algorithm, text.encode("latin-1"))


# auth-param = token BWS "=" BWS ( token / quoted-string ), RFC 7235 §2.1; a token is taken as anything up to a comma,
# because phones leave quotes away where the grammar wants them. Possessive: no input makes it go back and forth.
_PARAM = re.compile(
    r'\s*+(?P<name>[^\s=,"]++)\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"\s*+|(?P<token>[^",]*+))(?:,|$)', re.S
)


def _parse_params(text: str) -> dict[str, str]:
    params: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PARAM.match(text, at)
        if match is None:
            raise SipError("Authorization: not a list of name=value")
        name, quoted = match["name"].lower(), match["quoted"]
        if name in params:
            raise SipError(f"Authorization: {name[:40]} comes twice")
        params[name] = match["token"].strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.S)
        at = match.end()
    return params


def _username(params: dict[str, str]) -> str:
    if "username" in params:
        return params["username"]
    # RFC 7616 §3.4: username*=UTF-8''J%C3%A4s%C3%B8n%20Doe for names that are no ASCII (RFC 5987 ext-value).
    charset, _, rest = params.get("username*", "").partition("'")
    _, quote, encoded = rest.partition("'")
    if charset.lower() != "utf-8" or not quote:
        raise SipError("Authorization: no username parameter")
    return unquote_to_bytes(encoded.encode("latin-1")).decode("latin-1")


def _algorithm(name: str) -> Algorithm | None:
    return next((algorithm for algorithm in Algorithm if algorithm.lower() == name.lower()), None)


def _wire(text: str) -> str:
    """Text of the configuration as it looks in a message: UTF-8 bytes read as Latin-1."""
    return text.encode().decode("latin-1")


class Realm:
    """A protection space: its name, who is in it, and the key of its nonces."""

    def __init__(
        self,
        name: str,
        accounts: Iterable[Account],
        key: bytes,
        algorithms: Iterable[Algorithm] = (Algorithm.SHA_256, Algorithm.MD5),
        lifetime: float = 300.0,
        userhash: bool = False,
    ) -> None:
        """``lifetime``: seconds that a nonce is good for. ``userhash``: phones may hide the user name."""
        self.name = name
        self.lifetime = lifetime
        self.userhash = userhash
        self._key = key
        self._wire_name = _wire(name)
        wanted, members = set(algorithms), list(accounts)
        self.algorithms = tuple(
            algorithm
            for algorithm in _STRONGEST_FIRST
            if algorithm in wanted and all(a.secret(algorithm, name) is not None for a in members)
        )
        "What is offered, strongest first: wanted, and every account can answer it."
        self._members: dict[tuple[str, Algorithm], list[tuple[Account, str]]] = {}
        "(User name or its hash, algorithm) -> accounts of that name, one per domain, each with its HA1."
        for account in members:
            for algorithm in self.algorithms:
                self._add(account, algorithm)

    def _add(self, account: Account, algorithm: Algorithm) -> None:
        secret = account.secret(algorithm, self.name)
        assert secret is not None
        hashed = digest(algorithm, f"{account.username}:{self.name}".encode())
        for name in (_wire(account.username), hashed):
            self._members.setdefault((name, algorithm), []).append((account, secret))

    def challenges(self, now: float, salt: str, stale: bool = False) -> tuple[str, ...]:
        """Values for WWW-Authenticate or Proxy-Authenticate lines, strongest first (RFC 8760 §2.4).

        ``salt``: some 16 random hexadecimal digits, different each time, or phones would share nonce counts.
        ``stale``: the password was right, only the nonce was too old, so the phone need not ask its user.
        """
        nonce = self._nonce(f"{int(now * 1000):012x}{salt}")
        quoted = self._wire_name.replace("\\", "\\\\").replace('"', '\\"')
        rest = (", stale=true" if stale else "") + (", userhash=true" if self.userhash else "")
        return tuple(
            f'Digest realm="{quoted}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{rest}'
            for algorithm in self.algorithms
        )

    def _nonce(self, body: str) -> str:
        mark = hmac.new(self._key, f"{self.name}:{body}".encode(), "sha256").hexdigest()
        return body + mark[:32]

    def issued(self, nonce: str) -> float | None:
        """When this realm made the nonce, in seconds since the epoch; None if it did not."""
        body = nonce[:-32]
        if not re.fullmatch(r"[0-9a-f]{12,128}", body):
            return None
        if not hmac.compare_digest(self._nonce(body).encode(), nonce.encode("latin-1")):
            return None
        return int(body[:12], 16) / 1000

    def candidates(self, credentials: Credentials, algorithm: Algorithm) -> tuple[tuple[Account | None, str], ...]:
        """Whom the credentials may be of, by name or by its hash, each with HA1. For an unknown name nobody, with an
        HA1 that no password has: unknown users take as long as known ones."""
        user = credentials.username.lower() if credentials.userhash else credentials.username
        nobody = hmac.new(self._key, b"nobody", "sha256").hexdigest()[: algorithm.hex_length]
        return tuple(self._members.get((user, algorithm), ())) or ((None, nobody),)

    def owns(self, credentials: Credentials) -> bool:
        """Whether the credentials are for this realm."""
        return credentials.realm == self._wire_name


class Replays:
    """Which nonce counts were used. Bounded: when full, the oldest nonce is forgotten and counts as stale."""

    WINDOW = 64
    "Counts may come out of order by as many (parallel requests over UDP)."

    def __init__(self, limit: int = 100_000, since: float = 0.0) -> None:
        """``since``: nonces issued up to then count as stale, because nobody knows which of their counts were used."""
        self._limit = limit
        self._seen: dict[str, tuple[float, int, int]] = {}
        self._forgotten = since

    def accept(self, nonce: str, issued: float, count: int) -> bool:
        """Whether ``count`` is new for the nonce; if so it is used up from now on."""
        if nonce not in self._seen and issued <= self._forgotten:
            return False
        _, highest, mask = self._seen.get(nonce, (issued, 0, 0))
        if count > highest:
            mask = (mask << (count - highest) | 1) & (1 << self.WINDOW) - 1 if count - highest < self.WINDOW else 1
            highest = count
        elif count < 1 or highest - count >= self.WINDOW or mask >> (highest - count) & 1:
            return False
        else:
            mask |= 1 << (highest - count)
        self._seen[nonce] = (issued, highest, mask)
        if len(self._seen) > self._limit:
            self._forgotten = max(self._forgotten, self._seen.pop(next(iter(self._seen)))[0])
        return True

    def expire(self, before: float) -> None:
        """Forget the nonces issued before a time; call it now and then with ``now - lifetime``."""
        while self._seen and (oldest := next(iter(self._seen.items())))[1][0] < before:
            del self._seen[oldest[0]]

    def __len__(self) -> int:
        return len(self._seen)


class Verdict(StrEnum):
    """What credentials are worth."""

    GRANTED = "granted"
    MISSING = "missing"
    "None for this realm: challenge."
    STALE = "stale"
    "The password is right, the nonce is old, used up or of another server run: challenge with stale=true."
    DENIED = "denied"
    "Unknown user or wrong password."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict, and for whom."""

    verdict: Verdict
    account: Account | None = None
    "With GRANTED and STALE."
    why: str = ""
    "For a log line: what was wrong. Never a secret."


def verify(
    values: Iterable[str],
    method: str,
    realm: Realm,
    replays: Replays,
    now: float,
    wanted: Callable[[Account], bool] | None = None,
) -> Outcome:
    """Judge the values of all Authorization (or Proxy-Authorization) headers of a request. ``wanted``: which account to
    take if several of one name, in different domains, have the password.

    Good credentials use their nonce count up, so ask once per transaction; never for ACK and CANCEL, which repeat or
    carry none (RFC 3261 §22.1). SipError only for broken headers.
    """
    outcome = Outcome(verdict=Verdict.MISSING, why="no credentials")
    for value in values:
        credentials = Credentials.parse(value)
        if credentials is None or not realm.owns(credentials):
            continue
        outcome = _judge(credentials, method, realm, replays, now, wanted)
        if outcome.verdict is not Verdict.DENIED:
            break
    return outcome


def _judge(
    credentials: Credentials,
    method: str,
    realm: Realm,
    replays: Replays,
    now: float,
    wanted: Callable[[Account], bool] | None,
) -> Outcome:
    algorithm = credentials.algorithm
    if algorithm is None or algorithm not in realm.algorithms:
        return Outcome(verdict=Verdict.DENIED, why="an algorithm that was not offered")
    response = credentials.response.lower().encode("latin-1", "replace")
    candidates = realm.candidates(credentials, algorithm)
    right = [
        account
        for account, secret in candidates
        if hmac.compare_digest(credentials.expected(algorithm, secret, method).encode(), response)
    ]
    if not right or right[0] is None:
        why = "unknown user" if candidates[0][0] is None else "wrong password"
        return Outcome(verdict=Verdict.DENIED, why=why)
    account = next((one for one in right if one is not None and wanted is not None and wanted(one)), right[0])
    issued = realm.issued(credentials.nonce)
    if issued is None or not -0.001 <= now - issued <= realm.lifetime:
        return Outcome(verdict=Verdict.STALE, account=account, why="the nonce is too old or not ours")
    if not replays.accept(credentials.nonce, issued, int(credentials.nc, 16)):
        return Outcome(verdict=Verdict.STALE, account=account, why="the nonce count was used before")
    return Outcome(verdict=Verdict.GRANTED, account=account)

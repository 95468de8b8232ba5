"""[shell] The relays of a SIP domain as DNS names them: SRV records of ``_mediaproxy._tcp.DOMAIN`` (RFC 2782).

Domains come in, targets go out. Answers are kept as long as they say, within limits; that there is none is kept, too. A
caller waits no longer than ``patience``; then it gets what is known, and the look-up goes on for those who come later.
While the name servers are silent what was known stays good. Whoever sends calls chooses the domains, so look-ups and
memory are bounded.
"""

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.SRV
import dns.resolver
import msgspec

from mediaproxy import clock
from mediaproxy.dispatcher.directory import Target
from mediaproxy.endpoint import ip_address
from mediaproxy.link.address import host_text
from mediaproxy.nameservers import system_resolver

log = logging.getLogger("mediaproxy.dispatcher")

SERVICE = "_mediaproxy._tcp"
PATIENCE = 0.2
"Seconds that a question is held up at most."
LIFETIME = 4.0
"Seconds that one look-up may take, all retries included."
SHORTEST, LONGEST = 1.0, 3600.0
"Seconds that an answer is kept at least and at most."
NONE = 60.0
"Seconds that the absence of records is kept if the zone does not say."
FAILED = 10.0
"Seconds until name servers that were silent are asked again."
COMPLAIN = 60.0
"Seconds between two log lines about name servers that do not answer: callers choose what is looked up."
_AT_ONCE = 64
_REMEMBERED = 10_000


class _Known(msgspec.Struct):
    targets: tuple[Target, ...] = ()
    good_until: float = 0.0
    looking: asyncio.Task[None] | None = None


class Discovery:
    """SRV records, remembered."""

    def __init__(
        self,
        resolver: dns.asyncresolver.Resolver | None = None,
        *,
        patience: float = PATIENCE,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """``resolver``: None: as /etc/resolv.conf says."""
        self._resolver = resolver if resolver is not None else system_resolver()
        self._patience = patience
        self._now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking = 0
        self._complained = -COMPLAIN

    def latest(self, domain: str) -> tuple[Target, ...]:
        """What was heard last, however old it is."""
        known = self._known.get(domain)
        return known.targets if known is not None else ()

    def known(self, domain: str) -> tuple[Target, ...] | None:
        """What is known and good still; None: it should be looked up."""
        if not _has_relays(domain):
            return ()
        known = self._known.get(domain)
        return known.targets if known is not None and known.good_until > self._now() else None

    async def find(self, domain: str) -> None:
        """Look a domain up if need be, and wait a little for the answer. Never raises for what the network or the name
        says."""
        if self.known(domain) is not None:
            return
        known = self._known.setdefault(domain, _Known())
        self._known.move_to_end(domain)
        if known.looking is None and self._looking < _AT_ONCE:
            self._looking += 1
            known.looking = asyncio.get_running_loop().create_task(self._look_up(domain, known))
        if known.looking is not None:
            await asyncio.wait([known.looking], timeout=self._patience)
        self._forget_some()

    async def close(self) -> None:
        """End the look-ups that are under way."""
        tasks = [known.looking for known in self._known.values() if known.looking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, domain: str, known: _Known) -> None:
        try:
            known.targets, keep = await self._ask(domain)
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            keep = FAILED
            self._complain(domain, error)
        finally:
            known.looking = None
            self._looking -= 1
        known.good_until = self._now() + keep

    async def _ask(self, domain: str) -> tuple[tuple[Target, ...], float]:
        try:
            name = dns.name.from_text(f"{SERVICE}.{domain}.")
        except dns.exception.DNSException:
            return (), NONE  # no name at all
        try:
            answer = await self._resolver.resolve(
                name, "SRV", raise_on_no_answer=False, lifetime=LIFETIME, search=False
            )
        except dns.resolver.NXDOMAIN as error:
            return (), _kept(error.response(name))  # type: ignore[no-untyped-call]  # of dnspython
        if answer.rrset is None:
            return (), _kept(answer.response)
        records = [record for record in answer.rrset if isinstance(record, dns.rdtypes.IN.SRV.SRV)]
        # "." says that the service is decidedly not there.
        targets = tuple(_target(record) for record in records if record.target != dns.name.root and record.port)
        return targets, _bounded(answer.rrset.ttl)

    def _complain(self, domain: str, error: Exception) -> None:
        if self._now() - self._complained >= COMPLAIN:
            self._complained = self._now()
            why = "timeout" if isinstance(error, dns.exception.Timeout) else type(error).__name__
            log.warning("the relays of %s cannot be looked up: no usable answer of name servers (%s)", domain, why)

    def _forget_some(self) -> None:
        idle = (domain for domain, known in self._known.items() if known.looking is None)
        for domain in list(itertools.islice(idle, max(0, len(self._known) - _REMEMBERED))):
            del self._known[domain]


def _kept(response: dns.message.Message) -> float:
    """How long it is good that there is nothing (RFC 2308 §5)."""
    for rrset in response.authority:
        for record in rrset:
            if isinstance(record, dns.rdtypes.ANY.SOA.SOA):
                return _bounded(min(rrset.ttl, record.minimum))
    return NONE


def _bounded(ttl: int) -> float:
    return min(max(float(ttl), SHORTEST), LONGEST)


def _target(record: dns.rdtypes.IN.SRV.SRV) -> Target:
    host = host_text(record.target.to_text(omit_final_dot=True))
    return Target(host=host, port=record.port, priority=record.priority, weight=record.weight)


def _has_relays(domain: str) -> bool:
    """Whether it can be the name of a domain that has records (RFC 1035 §2.3.4)."""
    return 0 < len(domain) < 254 and ip_address(domain) is None and all("!" <= char <= "~" for char in domain)

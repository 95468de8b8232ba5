"""[shell] Which relays may serve a question: what is configured, else what DNS says, else those that serve everybody.

Questions come in, groups of relays for the pool go out. Only a question that begins a call is held up for DNS.
"""

import asyncio

from mediaproxy.control import Question
from mediaproxy.dispatcher.directory import Directory, domains_of, looked_up
from mediaproxy.dispatcher.discovery import Discovery
from mediaproxy.dispatcher.pool import Groups
from mediaproxy.dispatcher.settings import Lookup


class Guide:
    """The directory, and DNS behind it."""

    def __init__(
        self,
        directory: Directory,
        discovery: Discovery | None = None,
        *,
        lookup: Lookup = Lookup.LOCAL,
        strangers: bool = False,
    ) -> None:
        """``discovery``: None: DNS is not asked. ``lookup``: about whose domains it is. ``strangers``: whether relays
        count that are not configured."""
        self._directory = directory
        self._discovery = discovery if lookup is not Lookup.NOBODY else None
        self._lookup = lookup
        self._strangers = strangers

    async def groups(self, question: Question, *, wait: bool) -> Groups:
        """Those who may serve it. ``wait``: for DNS, a little, if it has not been asked yet."""
        groups = self._directory.configured(domains_of(question))
        if not groups and self._discovery is not None:
            groups = await self._discovered(self._discovery, looked_up(question, self._lookup), wait)
        return (*groups, self._directory.everybody())

    async def _discovered(self, discovery: Discovery, domains: tuple[str, ...], wait: bool) -> Groups:
        if wait and any(discovery.known(domain) is None for domain in domains):
            await asyncio.gather(*(discovery.find(domain) for domain in domains))
        found = (self._directory.named(discovery.latest(domain), strangers=self._strangers) for domain in domains)
        return tuple(group for group in found if group)

    async def close(self) -> None:
        """End look-ups that are under way."""
        if self._discovery is not None:
            await self._discovery.close()

"""What the edge asks the traversal about a message: repairs, and the question to the media arm.

The edge's own values come in and are put into words that ``traversal`` knows; its plans go out. Nothing is remembered
but the policy.
"""

from dataclasses import replace
from typing import TypeVar

from mediaproxy.agents import NOBODY, AgentList
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.routing import BEHIND_NAT, MARK
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.nat import Arrival, contacts
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import Facts, Plan, Policy, plan, repair

_M = TypeVar("_M", bound=Message)


def arrival_of(inbound: Inbound) -> Arrival:
    """The same in the words of ``nat``."""
    return Arrival(inbound.source, inbound.transport.value, inbound.local)


def policy_of(
    settings: EdgeSettings, hosts: frozenset[str] | None, sip: AgentList = NOBODY, rtp: AgentList = NOBODY
) -> Policy:
    """What the operator decided, in the words of ``traversal``. ``hosts`` are ours; None: that is not known. ``sip``
    and ``rtp`` are the lists of asymmetric clients."""
    return Policy(
        trusted_proxies=settings.trusted_proxies,
        local_domains=hosts,
        sip_asymmetric=sip,
        rtp_asymmetric=rtp,
        nat_tests=settings.nat_tests,
        ice=settings.ice,
    )


class Media:
    """Plans and repairs by the operator's policy."""

    def __init__(self, settings: EdgeSettings, hosts: frozenset[str]) -> None:
        self._settings = settings
        self._policy = policy_of(settings, hosts)

    def update(self, hosts: frozenset[str], settings: EdgeSettings | None = None) -> None:
        """Other hosts are ours from now on, or other settings count."""
        self._settings = settings or self._settings
        self._policy = policy_of(self._settings, hosts, self._policy.sip_asymmetric, self._policy.rtp_asymmetric)

    def heed(self, sip: AgentList, rtp: AgentList) -> None:
        """These are the lists of asymmetric clients from now on."""
        self._policy = replace(self._policy, sip_asymmetric=sip, rtp_asymmetric=rtp)

    def repair_request(self, request: Request, inbound: Inbound) -> tuple[Request, bool]:
        """The request with its source noted and its Contact repaired, and whether its sender is behind a NAT."""
        found = repair(request, arrival_of(inbound), self._policy)
        assert isinstance(found.message, Request)
        bound = found.nat and request.method != "REGISTER"  # the registrar remembers the connection
        return (_bound(found.message, inbound) if bound else found.message), found.nat

    def repair_response(self, response: Response, inbound: Inbound, natted: bool) -> Response:
        """The same for a response. ``natted``: it is known that only a NAT is between us and the phone that sent it."""
        if response.cseq.method == "REGISTER":
            return response
        found = repair(response, arrival_of(inbound), self._policy, direct=True if natted else None)
        assert isinstance(found.message, Response)
        return _bound(found.message, inbound) if found.nat else found.message

    def plan(self, message: Message, inbound: Inbound, facts: Facts | None = None) -> Plan:
        """What to ask about a message as it arrived."""
        if not self._settings.media:
            return Plan(message=message)
        return plan(message, arrival_of(inbound), self._policy, facts or Facts())


def _bound(message: _M, inbound: Inbound) -> _M:
    """Contacts that are only good for the connection they came over say so, because that is all there is to remember
    it by: requests to them go over it or nowhere (calls.md 18)."""
    if not inbound.transport.reliable:
        return message
    marked: dict[int, str] = {}
    for index, contact in contacts(message):
        if contact.star or contact.uri.endpoint != inbound.source:
            continue
        uri = contact.uri.with_param(MARK, BEHIND_NAT)
        if uri.scheme == "sip" and "transport" not in uri.params:
            uri = uri.with_param("transport", inbound.transport.value)
        marked[index] = str(contact.with_uri(uri))
    return message.replace_values("Contact", marked) if marked else message


__all__ = ["Facts", "Media", "Plan", "arrival_of"]

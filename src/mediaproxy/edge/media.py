"""What the edge asks the module and the traversal about a message.

The edge's own values come in and are put into words that ``traversal`` knows; its plans go out. Nothing is remembered
but the policy.
"""

from dataclasses import replace
from typing import TypeVar

from mediaproxy.agents import NOBODY, AgentList
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.routing import BEHIND_NAT, MARK
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.module import RouteType, Run
from mediaproxy.nat import Arrival, client_nat_test, contacts, force_rport, note_source
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message, Request
from mediaproxy.traversal import Facts, Plan, plan

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
    """Runs and plans by the operator's policy."""

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

    @property
    def relays(self) -> bool:
        """Whether media is relayed at all."""
        return self._settings.media

    def run(self, message: Message, inbound: Inbound, route: RouteType, facts: Facts | None = None) -> Run:
        """What a route of the script does with a message, given as it arrived."""
        return Run(message, arrival_of(inbound), self._policy, route, facts)

    def noted(self, request: Request, inbound: Inbound) -> Request:
        """The request as the server itself answers it: its source noted, and its port too if the phone seems to be
        behind a NAT. A SIP-asymmetric one does not listen where it sends from; phones of other servers are theirs."""
        arrival, policy = arrival_of(inbound), self._policy
        asymmetric = policy.sip_asymmetric.matches(request.user_agent)
        ours = len(request.values("via")) <= 1 and not policy.trusts(inbound.source.address)
        if ours and not asymmetric and client_nat_test(request, arrival, policy.nat_tests):
            return force_rport(request, arrival)
        return note_source(request, arrival)

    def plan(self, message: Message, inbound: Inbound, facts: Facts | None = None) -> Plan:
        """What to ask about a message as it arrived."""
        if not self._settings.media:
            return Plan(message=message)
        return plan(message, arrival_of(inbound), self._policy, facts or Facts())


def bound(message: _M, inbound: Inbound) -> _M:
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


__all__ = ["Facts", "Media", "Plan", "arrival_of", "bound", "policy_of"]

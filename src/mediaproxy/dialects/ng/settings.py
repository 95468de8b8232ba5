"""What an operator, and the process, decide about rtpengine's NG protocol, for all doors that speak it. Values only.

Names and meanings are those of rtpengine's options.
"""

from enum import StrEnum
from typing import Annotated

import msgspec


class CallbackFormat(StrEnum):
    """What an XML-RPC callback says (rtpengine's ``xmlrpc-format``)."""

    SEMS = "sems"
    "0: ``di`` with ``sbc``, ``postControlCmd``, a tag, ``teardown``; one per tag."
    CALL_ID = "call-id"
    "1: ``teardown`` with the Call-ID."
    KAMAILIO = "kamailio"
    "2: ``dlg.terminate_dlg`` with Call-ID and both tags."


class NgOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The NG protocol, at all doors that speak it (docs/migrate-rtpengine.md)."""

    max_sessions: Annotated[int, msgspec.Meta(ge=0)] | None = None
    "Calls at a time, after which offers of new ones are turned away. 0: no new calls, those there are go on."
    max_load: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    "Load average of the last minute above which new calls are turned away."
    max_cpu: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None
    "The same for the use of all CPUs of the host, in percent."
    max_bandwidth: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    "The same for what all relays forward, in bytes a second."
    sip_source: bool = False
    "``SIP source address`` counts unless a request says ``trust address`` (rtpengine's ``--sip-source``)."
    callback_url: str = ""
    """Who is told by XML-RPC of a call that ends by itself, such as ``http://%%:8090/RPC2``. ``%%`` stands for the
    address in the request's ``xmlrpc-callback``, else for the SIP server that asked. Empty: nobody."""
    callback_format: CallbackFormat = CallbackFormat.SEMS
    "``sems``, ``call-id`` or ``kamailio``: rtpengine's formats 0, 1 and 2."


class NgSettings(NgOptions, frozen=True, kw_only=True):
    """How requests are treated where they do not say: the operator's options, and what the process knows."""

    interfaces: frozenset[str] = frozenset()
    """Names of the relays' addresses. ``internal`` and ``external`` mean IPv4 and IPv6 unless they are among these, as
    with rtpengine."""
    versions: dict[str, int] = msgspec.field(default_factory=dict)
    "Those of them that have addresses of one IP version only, which is then meant."
    mark: str = ""
    "What ``loop protect`` writes into an SDP, 12 hexadecimal digits that no other server has; empty: nothing."

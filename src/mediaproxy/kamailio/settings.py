"""The settings of the module, by the original's names and with its defaults."""

from dataclasses import dataclass
from ipaddress import ip_network

from mediaproxy.agents import RTP_ASYMMETRICS, SIP_ASYMMETRICS
from mediaproxy.kamailio.pings import PingSettings
from mediaproxy.sdp import IcePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Keyword arguments of ``Module``. TypeError for a name that is none; ValueError says which value is wrong."""

    mediaproxy_socket: str = "/var/run/proxydispatcher.sock"
    "Where the dispatcher (`mediaproxy run`) listens."
    timeout: float = 0.3
    "Seconds that one SIP message may wait for the dispatcher, all its calls together."
    sip_asymmetrics: str = SIP_ASYMMETRICS
    "List of clients that are asymmetric in signalling; empty: none."
    rtp_asymmetrics: str = RTP_ASYMMETRICS
    "List of clients that are asymmetric in media; empty: none."
    natping_interval: float = 60
    "Seconds between two keep-alives to a contact behind NAT; 0: none are sent."
    ping_nated_only: bool = True
    "Keep-alives for contacts with ``nat_bflag`` only. False: for all."
    nat_bflag: int = 6
    "Branch flag of a contact behind NAT; as usrloc's ``nat_bflag``. -1: there is none; so for the others."
    sipping_bflag: int = 7
    "Branch flag of one whose keep-alives are SIP requests, instead of four zero bytes."
    sipping_remove_bflag: int = 8
    "Branch flag of one that is removed when it does not answer them."
    sipping_from: str = ""
    "From URI of these requests; empty: `sip:ping@` and the address they are sent from."
    sipping_method: str = "OPTIONS"
    "Their method."
    sipping_max_lost: int = 3
    "So many of them in a row without an answer, and the contact is silent."
    ice_candidate: IcePolicy = IcePolicy.KEEP
    "What becomes of ICE: keep, remove, low-priority, high-priority."
    local_domains: frozenset[str] | None = None
    "Domains whose users are ours; the domain module is asked instead if it is loaded. None: not known."
    trusted_proxies: tuple[str, ...] = ()
    "Addresses or prefixes of SIP servers before us, whose Via ``received`` is believed."
    signaling_ip_avp: str = "$avp(s:signaling_ip)"
    "Variable with the sender's address, if it is not the packet's source."
    media_relay_avp: str = "$avp(s:media_relay)"
    "Variable with the name of the relay that is wished for."
    ice_candidate_avp: str = "$avp(s:ice_candidate)"
    "Variable with what becomes of ICE in this call, instead of ``ice_candidate``."

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 10:
            raise ValueError(f"timeout: {self.timeout!r} is not above 0 and at most 10 seconds")
        _ = self.pings
        for name in ("local_domains", "trusted_proxies"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: a list of texts, not one text")
        for prefix in self.trusted_proxies:
            ip_network(prefix, strict=False)
        object.__setattr__(self, "ice_candidate", IcePolicy(self.ice_candidate))
        object.__setattr__(self, "trusted_proxies", tuple(self.trusted_proxies))
        if self.local_domains is not None:
            object.__setattr__(self, "local_domains", frozenset(self.local_domains))

    @property
    def pings(self) -> PingSettings:
        """Those of the keep-alives. ValueError if one is wrong."""
        return PingSettings(**{name: getattr(self, name) for name in PingSettings.__struct_fields__})

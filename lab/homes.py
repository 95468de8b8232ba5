"""The laboratory's Internet: a public network, homes behind their routers, an attacker.

The public bridge is 203.0.113.0/24 with the server on .10 and the attacker on .66. Home A (router .101) has the phones
at 192.168.1.10, home B (router .102) at 10.8.0.10, or 192.168.1.10 again if all homes use the same addresses; home C
at 172.16.5.10. Routers are Linux with nftables; what a packet meets here is what it meets in a real home. Private
addresses lead nowhere on the public network, as on the real one.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import TracebackType

from lab.netns import Namespace, Namespaces, sweep

SERVER = "203.0.113.10"
GATEWAY = "203.0.113.1"
ATTACKER = "203.0.113.66"
TESTER = "203.0.113.67"
STUN = "203.0.113.11"
NOBODY = "203.0.113.200"
"An address of the public network that nobody has."


class NatKind(StrEnum):
    """What a home router does with UDP (RFC 4787 names in the comments)."""

    NONE = "none"
    "No router: the phones have a public address of their own."
    RESTRICTED = "restricted"
    "Endpoint-independent mapping (port kept), address and port dependent filtering: Linux' default masquerade."
    SYMMETRIC = "symmetric"
    "Address and port dependent mapping: a new random port for every destination."
    FULLCONE = "fullcone"
    "Endpoint-independent mapping and filtering: everybody may send to the mapped port."
    ALG = "alg"
    "Restricted, plus Linux' SIP ALG, which rewrites SIP and SDP on its own account."


_LANS = {"a": "192.168.1", "b": "10.8.0", "c": "172.16.5"}
"Of each home: the first three bytes of its network."
_MASQUERADE = {kind: "masquerade" for kind in NatKind} | {NatKind.SYMMETRIC: "masquerade random,fully-random"}

_ALG_RULES = """
table ip alg {
  ct helper sip { type "sip" protocol udp; l3proto ip; }
  chain watch { type filter hook prerouting priority 0; iifname "lan" udp dport 5060 ct helper set "sip"; }
}
"""


def _rules(kind: NatKind, lan: str) -> str:
    """The router's nftables ruleset; ``lan`` is the first three bytes of the home's network.

    Unsolicited packets must be dropped on input: a packet that the router itself answers (ICMP port unreachable)
    leaves a conntrack entry behind, and the phone's next flow to that peer is then moved to another port.
    """
    everything = f'iifname "wan" udp dport 1024-65535 dnat to {lan}.10;' if kind is NatKind.FULLCONE else ""
    return f"""
table ip nat {{
  chain out {{ type nat hook postrouting priority 100; oifname "wan" {_MASQUERADE[kind]}; }}
  chain in {{ type nat hook prerouting priority -100; {everything} }}
}}
table ip filter {{
  chain to_router {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname {{ "lan", "lo" }} accept
  }}
  chain through {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" oifname "wan" ip saddr {lan}.0/24 accept
    iifname "wan" ct status dnat accept
  }}
}}
{_ALG_RULES if kind is NatKind.ALG else ""}"""


class Home:
    """A home: its router and the network behind it, where the phones live."""

    def __init__(self, kind: NatKind, router: Namespace, phone: Namespace, wan: str, address: str) -> None:
        self.kind = kind
        self.router = router
        "Without a router the same namespace as the phones'."
        self.phone = phone
        "The namespace of the phones."
        self.wan = wan
        "The home's public address."
        self.address = address
        "The phones' own address: private, or without a router the public one."

    def forward(self, *ports: int) -> None:
        """Have the router let everybody in at these UDP ports and pass it on to the phones, port by port."""
        numbers = ", ".join(map(str, ports))
        rule = f'add rule ip nat in iifname "wan" udp dport {{ {numbers} }} dnat to {self.address}'
        self.router.run("nft", rule)


class Internet:
    """The whole laboratory. A context manager: leaving it removes everything."""

    def __init__(
        self,
        kinds: Sequence[NatKind],
        *,
        same_lan: bool = False,
        udp_timeout: tuple[int, int] = (30, 120),
        namespaces: Namespaces | None = None,
    ) -> None:
        """``kinds``: one per home, at most three. ``udp_timeout``: seconds a router remembers a UDP flow that was
        answered not yet, and both ways."""
        sweep()
        self._namespaces = namespaces or Namespaces()
        homes: dict[str, Home] = {}
        self.homes: Mapping[str, Home] = homes
        "By name: a, b, c."
        try:
            self.public = self._namespaces.add("pub")
            self.attacker = self._namespaces.add("x")
            self._wire_public()
            for number, (name, kind) in enumerate(zip(_LANS, kinds, strict=False), 101):
                wan = f"203.0.113.{number}"
                if kind is NatKind.NONE:
                    homes[name] = self._public_home(name, wan)
                else:
                    homes[name] = self._home(name, kind, wan, _LANS["a" if same_lan else name], udp_timeout)
        except BaseException:
            self.close()
            raise

    def _wire_public(self) -> None:
        self.public.ip(
            "link add br0 type bridge",
            f"addr add {SERVER}/24 dev br0",
            f"addr add {GATEWAY}/24 dev br0",
            f"addr add {STUN}/24 dev br0",
            "link set br0 up",
            "link add elsewhere type veth peer name nowhere",
            "link set nowhere up",
            "link set elsewhere arp off up",
            "route add default dev elsewhere",
            f"link add veth-x type veth peer name eth0 netns {self.attacker.name}",
            "link set veth-x master br0 up",
        )
        self.attacker.ip(
            f"addr add {ATTACKER}/24 dev eth0",
            f"addr add {TESTER}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
        )

    def _public_home(self, name: str, wan: str) -> Home:
        phone = self._namespaces.add(name)
        self.public.ip(
            f"link add veth-{name} type veth peer name eth0 netns {phone.name}",
            f"link set veth-{name} master br0 up",
        )
        phone.ip(f"addr add {wan}/24 dev eth0", "link set eth0 up", f"route add default via {GATEWAY}")
        return Home(NatKind.NONE, phone, phone, wan, wan)

    def _home(self, name: str, kind: NatKind, wan: str, lan: str, udp_timeout: tuple[int, int]) -> Home:
        router = self._namespaces.add(f"r{name}")
        phone = self._namespaces.add(name)
        self.public.ip(
            f"link add veth-{name} type veth peer name wan netns {router.name}",
            f"link set veth-{name} master br0 up",
        )
        router.ip(
            f"addr add {wan}/24 dev wan",
            "link set wan up",
            f"route add default via {GATEWAY}",
            f"link add lan type veth peer name eth0 netns {phone.name}",
            f"addr add {lan}.1/24 dev lan",
            "link set lan up",
        )
        phone.ip(f"addr add {lan}.10/24 dev eth0", "link set eth0 up", f"route add default via {lan}.1")
        router.run("nft", "-f", "-", text=_rules(kind, lan))
        router.run(
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            f"net.netfilter.nf_conntrack_udp_timeout={udp_timeout[0]}",
            f"net.netfilter.nf_conntrack_udp_timeout_stream={udp_timeout[1]}",
        )
        return Home(kind, router, phone, wan, f"{lan}.10")

    def close(self) -> None:
        """Remove every process and namespace of this laboratory."""
        self._namespaces.close()

    def __enter__(self) -> "Internet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

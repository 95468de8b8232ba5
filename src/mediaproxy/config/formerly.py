"""What settings of MediaProxy, rtpproxy and rtpengine are called here, for whoever writes them into our configuration.

A key comes in, words go out (docs/migrate-*.md have all of them).
"""

_DOOR = '[[listen]] with protocol = "{}"'
_HERE = {
    # MediaProxy 2.x, config.ini
    "relay_ip": "relay.addresses",
    "advertised_ip": "relay.addresses, advertise",
    "port_range": "relay.port_min and relay.port_max",
    "stream_timeout": "relay.silence",
    "on_hold_timeout": "relay.hold",
    "routable_private_ranges": "relay.routable",
    "listen_management": _DOOR.format("management"),
    # rtpengine
    "interface": "relay.addresses (relay.interfaces are network cards)",
    "timeout": "relay.silence",
    "silent_timeout": "relay.hold",
    "offer_timeout": "relay.unanswered",
    "listen_ng": _DOOR.format("ng"),
    "listen_tcp_ng": _DOOR.format("ng"),
    "listen_http": _DOOR.format("ng-http"),
    "listen_https": _DOOR.format("ng-http"),
    "b2b_url": "ng.callback_url",
    "xmlrpc_format": "ng.callback_format",
}


def here(key: str) -> str | None:
    """The setting that ``key`` may mean; None: none is known."""
    return _HERE.get(key.lower().replace("-", "_"))

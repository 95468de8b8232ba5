"""What an operator can set about HTTP: ``[web]``."""

import msgspec


class WebSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTP for monitoring: /health, /metrics for Prometheus, /status and /calls as JSON (docs/metrics.md)."""

    address: str = ""
    "Address and port that it listens on, such as ``127.0.0.1:9107`` or ``[::1]:9107``. Empty: none, it is off."
    allow: tuple[str, ...] = ()
    "Addresses and prefixes (CIDR) that may ask. Empty: this host only. There are no passwords."

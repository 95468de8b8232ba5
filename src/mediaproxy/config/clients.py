"""The lists of asymmetric clients that a configuration names, read once, for commands that end at once.

A server keeps them up to date (``watch.AsymmetricClients``).
"""

from collections.abc import Callable

from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.watch import AsymmetricClients


def clients_of(settings: EdgeSettings, report: Callable[[str], None]) -> AsymmetricClients:
    """The lists as they are now. ``report`` takes a line for each thing that is wrong with them."""
    clients = AsymmetricClients(settings.sip_asymmetrics, settings.rtp_asymmetrics, report, lambda news: None)
    clients.refresh(0.0)
    return clients

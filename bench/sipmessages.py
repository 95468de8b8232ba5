"""``sipmessage`` (PyPI) as a rival: as much of our work as it can do. It has no SDP; the NAT test is here."""

from dataclasses import replace
from importlib.metadata import version

import sipmessage

from mediaproxy.endpoint import Endpoint

NAME = f"sipmessage {version('sipmessage')} (no SDP)"


def repaired(data: bytes, source: Endpoint) -> bytes:
    """Read a message, put its source into Contact if the top Via says something else, write it."""
    message = sipmessage.Message.parse(data)
    contacts = message.contact
    if message.via[0].host != source.address:
        uri = replace(contacts[0].uri, host=source.address, port=source.port)
        message.contact = [replace(contacts[0], uri=uri)]
    return bytes(message)

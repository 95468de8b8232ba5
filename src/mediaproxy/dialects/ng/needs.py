"""What a request needs that no relay of ours does, so that it must be refused rather than half done.

A Command and the SDP it is about come in; NgError, which names the word, goes out, or nothing. SRTP whose keys the two
phones agree on themselves passes untouched: only what would have to be decrypted or encrypted here is refused.
"""

from mediaproxy.dialects.ng.bencode import NgError
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.words import OFF, TRANSPORTS, normal
from mediaproxy.sdp import Block, Section

_TERMINATION = "SRTP termination"
_IN_OFFERS = "transcoding"


def check(command: Command) -> None:
    """Whatever the SDP says. NgError."""
    if not (command.needs or command.ptime or command.delay_buffer or command.t38 or command.osrtp):
        return
    offering = command.name != "answer"
    for word, what in command.needs:
        if offering or what != _IN_OFFERS or not word.startswith(("codec-", "transcode")):
            raise _refused(word, what)
    if offering and command.ptime:
        raise _refused(f"ptime={command.ptime}", _IN_OFFERS)
    if offering and (command.delay_buffer or 0) > 0:
        raise _refused(f"delay-buffer={command.delay_buffer}", _IN_OFFERS)
    for word in sorted(command.t38 & {"decode", "force"}) if offering else ():
        raise _refused(f"T.38={word}", _IN_OFFERS)
    for word in sorted(word for word in command.osrtp if word.startswith("offer")):
        raise _refused(f"OSRTP={word}", _TERMINATION)


def check_stream(command: Command, section: Section, session: Block) -> None:
    """What one stream's SDP says of SRTP. NgError."""
    if not command.dtls and not command.sdes:
        return
    if section.has("fingerprint") or session.has("fingerprint"):
        for word in sorted(command.dtls & (OFF - {""})):
            raise _refused(f"DTLS={word}", _TERMINATION)
    suites = [normal(suite) for suite in _suites(section)]
    if suites and all(unwanted(command, suite) for suite in suites):
        raise _refused(f"SDES={','.join(sorted(command.sdes))}", _TERMINATION)


def unwanted(command: Command, suite: str) -> bool:
    """Whether the words of ``SDES`` keep out a crypto suite (RFC 4568 §6.2), which is written as ``normal`` does."""
    words = command.sdes
    if words & (OFF - {""}):
        return True
    only = {word[5:] for word in words if word.startswith("only-")}
    return (bool(only) and suite not in only) or f"no-{suite}" in words


def transport(command: Command, section: Section, wanted: str) -> str:
    """The transport that goes on: ``wanted`` if it differs in nothing that matters to the media. NgError if SRTP would
    have to be ended or made here."""
    own = section.transport
    if not wanted or wanted.upper() == own.upper() or not section.rtp:
        return TRANSPORTS.get(own.lower(), own)
    if not section.port and _protection(own) != _protection(wanted):
        return own
    if "RTP/" not in wanted.upper():
        raise _refused(f"transport-protocol={wanted}", "transcoding")
    if _protection(own) != _protection(wanted):
        raise _refused(f"transport-protocol={wanted}", _TERMINATION)
    return TRANSPORTS.get(wanted.lower(), wanted)


def as_protected(one: str, other: str) -> bool:
    """Whether two transports of RTP agree in SRTP and DTLS."""
    return "RTP/" in one.upper() and "RTP/" in other.upper() and _protection(one) == _protection(other)


def _protection(transport: str) -> tuple[bool, bool]:
    upper = transport.upper()
    return "SAVP" in upper, "TLS" in upper


def _suites(section: Section) -> list[str]:
    return [parts[1] for value in section.values("crypto") if len(parts := value.split()) > 1]


def suite_of(crypto: str) -> str:
    """The suite that the value of an a=crypto line names, as ``normal`` writes it."""
    parts = crypto.split()
    return normal(parts[1]) if len(parts) > 1 else ""


def _refused(word: str, what: str) -> NgError:
    return NgError(f"{word} needs {what}, which this server does not do")

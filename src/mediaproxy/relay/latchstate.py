"""Where a latch stands, and what moves it: the table of docs/diagrams.md."""

from enum import Enum


class State(Enum):
    """Where a latch stands."""

    __hash__ = object.__hash__  # that of enumerations is written in Python

    WAITING = "waiting"
    "No SDP has told whom to expect: nobody may speak."
    EXPECTING = "expecting"
    "SDP is there, no qualifying packet yet."
    LEARNED = "learned"
    "The first packet is less than a second old: a better source may still replace it (calls.md 4)."
    SETTLED = "settled"
    "Only a new port of the same address may replace the source (calls.md 6)."
    MOVING = "moving"
    "SIP has announced a change: the source flows until the first packet of a new one (calls.md 7)."


class Input(Enum):
    """What moves a latch."""

    __hash__ = object.__hash__

    SDP = "SDP"
    "An expectation that is the first, or changes c=, port, Contact or signalling address."
    BACK = "SDP as before"
    "SIP is back at what the source was learned by: a hold is over, or an offer was refused."
    PACKET = "qualifying packet"
    "A packet that latches: first, better, moved."
    SECOND = "a second has passed"
    NOMINATED = "nominated by ICE"
    "A connectivity check with our password, by which its sender wants media to go this way (RFC 8445 §7.3.1.5)."
    MET = "met another call"
    "The party is a port of another call of this relay, and that call's SDP names this port (calls.md, spirals)."
    PARTED = "parted from it"
    "That is so no more."


TRANSITIONS: dict[State, dict[Input, State]] = {
    State.WAITING: {Input.SDP: State.EXPECTING},
    State.EXPECTING: {
        Input.SDP: State.EXPECTING,
        Input.PACKET: State.LEARNED,
        Input.NOMINATED: State.SETTLED,
        Input.MET: State.SETTLED,
    },
    State.LEARNED: {
        Input.PACKET: State.LEARNED,
        Input.SECOND: State.SETTLED,
        Input.NOMINATED: State.SETTLED,
        Input.MET: State.SETTLED,
        Input.PARTED: State.EXPECTING,
        Input.SDP: State.MOVING,
    },
    State.SETTLED: {
        Input.PACKET: State.SETTLED,
        Input.NOMINATED: State.SETTLED,
        Input.MET: State.SETTLED,
        Input.PARTED: State.EXPECTING,
        Input.SDP: State.MOVING,
    },
    State.MOVING: {
        Input.PACKET: State.LEARNED,
        Input.NOMINATED: State.SETTLED,
        Input.MET: State.SETTLED,
        Input.PARTED: State.EXPECTING,
        Input.SDP: State.MOVING,
        Input.BACK: State.SETTLED,
    },
}

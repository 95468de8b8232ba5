"""Where the four transactions of RFC 3261 §17 may go, with the Accepted states of RFC 6026: tables, nothing else.

One table per machine, ``State -> Input -> State``, from which docs/diagrams.md is drawn. An input that the table does
not name is absorbed. What is sent meanwhile is the business of ``transaction``.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias


class State(StrEnum):
    """Where a transaction stands; which of them a machine has, its table says."""

    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    ACCEPTED = "Accepted"
    TERMINATED = "Terminated"


class Input(StrEnum):
    """What can happen to a transaction. Responses are received by a client machine, sent by a server machine."""

    REQUEST = "request again"
    ACK = "ACK"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    TIMER_A = "timer A"
    TIMER_B = "timer B"
    TIMER_D = "timer D"
    TIMER_E = "timer E"
    TIMER_F = "timer F"
    TIMER_G = "timer G"
    TIMER_H = "timer H"
    TIMER_I = "timer I"
    TIMER_J = "timer J"
    TIMER_K = "timer K"
    TIMER_L = "timer L"
    TIMER_M = "timer M"
    TRANSPORT_ERROR = "transport error"


Table: TypeAlias = Mapping[State, Mapping[Input, State]]

# RFC 3261 §17.1.1, figure 5, as corrected by RFC 6026 §7.2.
INVITE_CLIENT: Table = {
    State.CALLING: {
        Input.TIMER_A: State.CALLING,
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.ACCEPTED,
        Input.FAILURE: State.COMPLETED,
        Input.TIMER_B: State.TERMINATED,
        Input.TRANSPORT_ERROR: State.TERMINATED,
    },
    State.PROCEEDING: {
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.ACCEPTED,
        Input.FAILURE: State.COMPLETED,
    },
    State.COMPLETED: {
        Input.FAILURE: State.COMPLETED,
        Input.TIMER_D: State.TERMINATED,
        Input.TRANSPORT_ERROR: State.TERMINATED,
    },
    State.ACCEPTED: {
        Input.SUCCESS: State.ACCEPTED,
        Input.TIMER_M: State.TERMINATED,
    },
    State.TERMINATED: {},
}

# RFC 3261 §17.1.2, figure 6.
NON_INVITE_CLIENT: Table = {
    State.TRYING: {
        Input.TIMER_E: State.TRYING,
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.COMPLETED,
        Input.FAILURE: State.COMPLETED,
        Input.TIMER_F: State.TERMINATED,
        Input.TRANSPORT_ERROR: State.TERMINATED,
    },
    State.PROCEEDING: {
        Input.TIMER_E: State.PROCEEDING,
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.COMPLETED,
        Input.FAILURE: State.COMPLETED,
        Input.TIMER_F: State.TERMINATED,
        Input.TRANSPORT_ERROR: State.TERMINATED,
    },
    State.COMPLETED: {
        Input.TIMER_K: State.TERMINATED,
    },
    State.TERMINATED: {},
}

# RFC 3261 §17.2.1, figure 7, as corrected by RFC 6026 §7.1.
INVITE_SERVER: Table = {
    State.PROCEEDING: {
        Input.REQUEST: State.PROCEEDING,
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.ACCEPTED,
        Input.FAILURE: State.COMPLETED,
    },
    State.COMPLETED: {
        Input.REQUEST: State.COMPLETED,
        Input.TIMER_G: State.COMPLETED,
        Input.ACK: State.CONFIRMED,
        Input.TIMER_H: State.TERMINATED,
    },
    State.CONFIRMED: {
        Input.TIMER_I: State.TERMINATED,
    },
    State.ACCEPTED: {
        # RFC 6026 §7.1: further 2xx of a fork pass, an ACK that matches is the user's, the request again is absorbed.
        Input.SUCCESS: State.ACCEPTED,
        Input.ACK: State.ACCEPTED,
        Input.TIMER_L: State.TERMINATED,
    },
    State.TERMINATED: {},
}

# RFC 3261 §17.2.2, figure 8.
NON_INVITE_SERVER: Table = {
    State.TRYING: {
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.COMPLETED,
        Input.FAILURE: State.COMPLETED,
    },
    State.PROCEEDING: {
        Input.REQUEST: State.PROCEEDING,
        Input.PROVISIONAL: State.PROCEEDING,
        Input.SUCCESS: State.COMPLETED,
        Input.FAILURE: State.COMPLETED,
    },
    State.COMPLETED: {
        Input.REQUEST: State.COMPLETED,
        Input.TIMER_J: State.TERMINATED,
    },
    State.TERMINATED: {},
}

TABLES: Mapping[str, Table] = {
    "INVITE client transaction": INVITE_CLIENT,
    "Non-INVITE client transaction": NON_INVITE_CLIENT,
    "INVITE server transaction": INVITE_SERVER,
    "Non-INVITE server transaction": NON_INVITE_SERVER,
}
"What docs/diagrams.md shows."

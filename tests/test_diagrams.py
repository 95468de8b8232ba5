"""The pictures in docs/diagrams.md are those of the tables."""

from docs.diagrams import FILE, draw, machines, page
from mediaproxy.sip.transactionstate import Input, State


def test_committed_picture_is_that_of_the_tables() -> None:
    assert FILE.read_text() == page(), "run: python -m docs.diagrams"


def test_every_machine_is_drawn() -> None:
    assert [title for title, _, _ in machines()] == [
        "INVITE client transaction",
        "Non-INVITE client transaction",
        "INVITE server transaction",
        "Non-INVITE server transaction",
        "Latch of one relay port",
    ]


def test_drawing() -> None:
    table = {
        State.CALLING: {Input.PROVISIONAL: State.CALLING, Input.TIMER_A: State.CALLING, Input.ACK: State.TERMINATED},
        State.TERMINATED: {},
    }
    assert draw(table).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> Calling",
        "    Calling --> Calling: 1xx, timer A",
        "    Calling --> Terminated: ACK",
        "    Terminated --> [*]",
    ]

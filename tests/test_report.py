"""relay/report.py: what an operator sees."""

from mediaproxy.control import KnownBy
from mediaproxy.events import Side
from tests.relaybench import STRANGER, Bench, at, rtp

# -- what an operator sees


def test_phones_address_unknown() -> None:
    bench = Bench()
    bench.bob.signalling = None
    _, facing_bob = bench.talk()
    assert any("address is unknown" in warning for warning in bench.side(Side.CALLEE).warnings)
    results = [bench.packet(STRANGER, facing_bob, rtp(number)) for number in range(6)]
    assert [len(result) for result in results] == [0, 0, 0, 0, 1, 1] and bench.side(Side.CALLEE).rank == 4


def test_warnings_say_why_there_is_no_audio() -> None:
    bench = Bench()
    bench.talk()
    bench.run(12)
    warnings = " / ".join(bench.side(Side.CALLEE).warnings)
    assert "nothing received from callee for 12 s" in warnings
    assert "10.0.0.1:4000, a private address" in warnings and "198.51.100.2:4000" in warnings


def test_report_of_the_parties() -> None:
    bench = Bench()
    bench.alice.agent = "Toy/1"
    bench.invite(dialog_id="7:8")
    bench.answer()
    report = bench.report
    assert (report.relay, report.dialog_id, report.caller.user_agent) == ("relay-1", "7:8", "Toy/1")
    assert report.caller.uri == "sip:alice@example.net" and report.callee.uri == "sip:bob@example.net"
    assert report.caller.signalling == at("203.0.113.1:5060") and report.caller.known_by is KnownBy.SOURCE

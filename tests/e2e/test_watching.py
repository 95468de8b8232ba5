"""What an operator sees of a real call, while it runs and after it: calls, registrations, records, log."""

import json
import time
from typing import Any

from lab.homes import ATTACKER, SERVER
from tests.e2e.conftest import Shared, proven
from tests.e2e.test_attacks import Attack


def test_a_running_call_and_its_record(symmetric: Shared) -> None:
    proven(lambda: _a_running_call_and_its_record(symmetric))


def _a_running_call_and_its_record(symmetric: Shared) -> None:
    site, server = symmetric.site, symmetric.site.server
    assert server is not None
    seen: list[Any] = []

    def look(seconds: float) -> None:
        standing = [one for one in server.ask("calls") if one["state"] != "lingering"]
        seen.append((standing, time.time()))

    spraying = Attack(site, "spray", SERVER, "20000", "20399", "3")
    call, wire = symmetric.talk(4.0, every_second=look)
    spraying.outcome()
    assert call.share >= 0.95

    (shown,), asked = seen[-1]
    talked = asked - shown["answered"]
    assert shown["state"] == "talking"
    assert (shown["caller"]["uri"], shown["callee"]["uri"]) == ("sip:alice@sip.test", "sip:bob@sip.test")
    assert "baresip" in shown["caller"]["user_agent"]
    (stream,) = shown["streams"]
    for side, home in (("caller", "a"), ("callee", "b")):
        end = stream[side]
        assert end["learned"]["address"] == site.internet.homes[home].wan
        assert (talked / 2 - 1) * 50 <= end["packets"] <= (talked + 1) * 50, talked
        assert end["sent"] > 0
        # What the phone itself sent before its answer was there may have been refused, too.
        most = max(end["refused"], key=lambda one: int(one["packets"]))
        assert most["source"]["address"] == ATTACKER

    server.wait("a record", "records", until=lambda records: shown["call_id"] in [one["call_id"] for one in records])
    (record,) = (one for one in server.ask("records") if one["call_id"] == shown["call_id"])
    assert record["reason"] == "bye"
    assert abs(record["duration"] - call.seconds) < 1.0
    (media,) = record["streams"]
    for side, way in (("caller", wire.to_callee), ("callee", wire.to_caller)):
        assert abs(media[side]["packets"] - way.relayed) <= 2, (side, way.relayed)
    assert not [one for one in server.ask("calls") if one["state"] in ("ringing", "talking")]


def test_registrations_name_phones_and_their_nats(symmetric: Shared) -> None:
    server = symmetric.site.server
    assert server is not None
    listed = json.dumps(server.ask("registrations"))
    for name, home in (("alice", "a"), ("bob", "b")):
        assert name in listed
        assert symmetric.site.internet.homes[home].wan in listed
        assert symmetric.site.internet.homes[home].address in listed


def test_the_log_tells_the_story_of_a_call(symmetric: Shared) -> None:
    server = symmetric.site.server
    assert server is not None
    before, records = len(server.log), len(server.ask("records"))
    symmetric.talk(0.5)
    written = server.wait("a record", "records", until=lambda found: len(found) > records)
    (call_id,) = {record["call_id"] for record in written[-1:]}
    lines = [line for line in server.log[before:].splitlines() if call_id in line]
    assert len(lines) >= 4  # started, answered, both learned, ended


def test_what_people_read_has_the_call_in_it(symmetric: Shared) -> None:
    server = symmetric.site.server
    assert server is not None
    shown: list[str] = []
    symmetric.talk(2.0, every_second=lambda seconds: shown.append(server.show("calls")))
    assert "alice" in shown[0]
    assert "bob" in shown[0]

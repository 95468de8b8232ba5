"""What Kamailio 5.6's module really sends: every captured command gets an answer that the module accepts.

tests/captures/README.md says where they come from. The script has the flag ``z20``, which is why there is memory in the
modifiers that nobody has filled.
"""

import re
from pathlib import Path

import pytest

from mediaproxy.control import MediaRequest
from mediaproxy.endpoint import ip_address
from tests.rtppbench import ProxyBench

CAPTURE = (Path(__file__).parent / "captures" / "rtpproxy.cap").read_bytes()
_HEAD = re.compile(rb"^### port\d+ from \S+ (\d+) bytes\n", re.MULTILINE)


def datagrams() -> list[bytes]:
    return [CAPTURE[head.end() : head.end() + int(head[1])] for head in _HEAD.finditer(CAPTURE)]


REFUSED = (b"Lc0 c9-late-offer ", b"Lc96 c13-extra-answer ")
"""L of what was never offered: a script that answers a late offer by rtpproxy_answer() twice, and a callee that answers
a stream more than there was. 0 is the protocol's answer, and the module leaves the SDP alone."""


def accepted(command: bytes, words: list[str]) -> bool:
    """What the module makes of an answer (its reference, and tried): a port it can write, or the version it knows."""
    if command.startswith(b"V "):
        return words == ["20040107"]
    if command.startswith(b"VF"):
        return words == ["1"] if command == b"VF 20050322" else words in (["0"], ["1"])
    if command[:1] in b"UL":
        port, address = words[0], words[1] if len(words) > 1 else ""
        return port.isdigit() and 0 < int(port) <= 65535 and ip_address(address) is not None
    return words == ["0"]


def test_the_capture_is_whole() -> None:
    found = datagrams()
    assert len(found) == CAPTURE.count(b"answer: ") == 122
    assert sum(b"\0" in one for one in found) == 41


def test_every_command_of_the_module_is_answered_as_it_wants() -> None:
    bench = ProxyBench(port_max=20998)
    seen: dict[bytes, bytes] = {}
    for datagram in datagrams():
        cookie, _, command = datagram.partition(b" ")
        if command == b"V":
            command += b" "
        head, *words = bench.say(datagram, "udp").split(" ")
        assert head.encode("latin-1") == cookie
        if command.startswith(REFUSED):
            assert words == ["0"]
        elif command.startswith(b"D c9-"):
            assert words == ["E50"], "no offer of this call was seen"
        else:
            assert accepted(command, words), (command, words)
        seen[command] = words[0].encode("latin-1")
    assert len(bench.ended) + len(bench.calls) == 13, "calls that got ports"
    bench.run(40)
    assert len(bench.calls) == 0 and bench.calls.ports_lent == 0


@pytest.mark.parametrize("number", [1, 2, 22, 40])
def test_garbage_in_modifiers_hides_nothing(number: int) -> None:
    bench = ProxyBench(port_max=20998)
    ending = b"a-c14-40streams;%d" % number
    command = next(one for one in datagrams() if one.endswith(b" " + ending) and b" USZ" in one)
    bench.say(command, "udp")
    (question,) = bench.asked
    assert isinstance(question, MediaRequest)
    assert (question.call_id, question.sender.tag, question.part) == ("c14-40streams", "a-c14-40streams", number - 1)
    assert [one.number for one in question.streams[0].payload_types] == [0]
    assert str(question.streams[0].endpoint) == f"203.0.113.10:{3998 + 2 * number}"

"""Stories of media: RTCP both ways it is told, fax, video that comes and goes, asymmetric clients, bad links."""

import pytest

from mediaproxy.agents import AgentList
from mediaproxy.events import EndReason, PeerLearned, Side
from mediaproxy.policy import Policy
from tests.vnet import DSL, KINDS, RESTRICTED, SYMMETRIC, Kind, Link
from tests.vworld import World

# RTCP


@pytest.mark.parametrize("mux", [False, True], ids=["separate", "rtcp-mux"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rtcp_gets_through(kind: Kind, mux: bool) -> None:
    world = World(strict=True)
    alice, bob = world.pair(kind, kind)
    alice.voice_options = bob.voice_options = {"mux": mux}
    call, answer = world.connect(alice, bob)
    world.net.run(21)
    for listener, speaker in ((call, answer), (answer, call)):
        reports = [report for report in listener.voice.rtcp_heard if report.tone == speaker.phone.name]
        assert len(reports) >= speaker.voice.rtcp_sent - 1 >= 3
    learned = world.relay.seen(PeerLearned)
    assert {event.rtcp for event in learned} == ({False} if mux else {False, True})


def test_rtcp_before_rtp() -> None:
    """A phone that reports first and speaks 3 s later."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    answer.voice.muted = True
    world.net.run(3)
    answer.voice.muted = False
    world.two_way(call, answer)


# Other media


def test_fax() -> None:
    """T.38 over udptl, two symmetric NATs: no RTP at all."""
    world = World(strict=True)
    alice, bob = world.pair(SYMMETRIC, SYMMETRIC)
    alice.kinds = ["image"]
    world.two_way(*world.connect(alice, bob))


def test_call_becomes_a_fax() -> None:
    """Audio first; then a re-INVITE adds T.38 and drops audio."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    world.two_way(call, answer)
    call.add("image")
    call.drop("audio")
    call.reinvite()
    world.net.run(1)
    assert call.status == 200 and len(answer.voices) == 2
    world.two_way(call, answer, number=1)
    since = world.net.now
    world.net.run(1)
    assert world.share(call, "bob", since, 0) == world.share(answer, "alice", since, 0) == 0


def test_video_comes_and_goes() -> None:
    world = World(strict=True)
    call, answer = world.connect(*world.pair(SYMMETRIC, RESTRICTED))
    answer.add("video")
    answer.reinvite()
    world.net.run(1)
    for number in (0, 1):
        world.two_way(call, answer, number=number)
    ports, camera = len(world.relay.plane.lent), call.voices[1].remote
    answer.drop("video")
    answer.reinvite()
    world.net.run(1)
    call.voices[1].aim(camera, None, True)  # a phone that does not understand port 0
    world.two_way(call, answer)
    since = world.net.now
    world.net.run(1)
    assert world.share(call, "bob", since, 1) == world.share(answer, "alice", since, 1) == 0
    world.net.run(60)
    assert len(world.relay.plane.lent) <= ports
    world.two_way(call, answer)


def test_video_and_audio_from_the_start() -> None:
    world = World(strict=True)
    alice, bob = world.pair(SYMMETRIC, SYMMETRIC)
    alice.kinds = ["audio", "video"]
    call, answer = world.connect(alice, bob)
    for number in (0, 1):
        world.two_way(call, answer, number=number)
    assert {stream.kind for stream in world.relay.report.streams} == {"audio", "video"}


# Asymmetric clients


@pytest.mark.parametrize("listed", [True, False])
def test_asymmetric_client(listed: bool) -> None:
    """A public client that sends from one port and listens on another: listed by its User-Agent, it hears; else the
    relay answers to where it sends from, and nobody listens there."""
    world = World(strict=True)
    if listed:
        world.server.policy = Policy(rtp_asymmetric=AgentList.parse("^Toy alice", "asymmetric"))
    alice, bob = world.phone("alice", world.net.public, "203.0.113.70"), world.phone("bob")
    alice.voice_options = {"send_port": 7000}
    call, answer = world.connect(alice, bob)
    since = world.net.now
    world.net.run(3)
    assert world.share(answer, "alice", since) >= 0.99
    assert (world.share(call, "bob", since) >= 0.99) == listed
    assert world.relay.report.caller.asymmetric == listed


# Bad links


BAD = {
    "loss": (Link(delay=0.02, loss=0.05), 0.85),
    "jitter that reorders": (Link(delay=0.02, jitter=0.08), 0.97),
    "reordering": (Link(delay=0.02, reorder=0.05), 0.97),
    "duplicates": (Link(delay=0.02, duplicate=0.1), 0.97),
    "all of it": (Link(delay=0.05, jitter=0.05, loss=0.03, reorder=0.05, duplicate=0.05), 0.88),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", BAD)
def test_bad_links(how: str, seed: int) -> None:
    """What the links leave is heard; signalling goes over the same links and is retransmitted."""
    link, least = BAD[how]
    world = World(seed, strict=True)
    alice = world.phone("alice", world.home(SYMMETRIC, link=link))
    bob = world.phone("bob", world.home(RESTRICTED, link=link))
    world.net.run(3)
    call = alice.call("bob")
    world.net.run(20)
    assert call.state == "up", call.status
    since = world.net.now
    world.net.run(10)
    assert world.share(call, "bob", since) >= least
    assert world.share(bob.last, "alice", since) >= least
    assert len(world.relay.plane.lent) == 4, "retransmissions get the same ports"
    rebound = [event for event in world.relay.seen(PeerLearned) if event.before]
    assert rebound == []
    call.hang_up()
    world.net.run(40)
    assert world.relay.ends == [EndReason.BYE]


def test_nat_reboots_on_a_bad_link() -> None:
    """Reordered packets of before the reboot arrive after those of the new mapping: no flapping, no loss."""
    world = World(strict=True)
    home = world.home(link=Link(delay=0.02, jitter=0.06))
    alice, bob = world.phone("alice", home), world.phone("bob", world.home(link=DSL))
    call, answer = world.connect(alice, bob)
    for _ in range(5):
        world.net.run(1.5)
        home.rebind()
    since = world.net.now
    world.net.run(3)
    assert world.share(answer, "alice", since) >= 0.97
    moves = [event for event in world.relay.seen(PeerLearned) if event.before]
    assert len([event for event in moves if not event.rtcp and event.side is Side.CALLER]) <= 5
    assert world.share(call, "bob", since) >= 0.9

"""Everything there is to say about one message. ``str()`` of it is the page that a person reads."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mediaproxy.control import MediaRequest, PhoneAddress, Stream
from mediaproxy.explain.chapters import contact_lines, message_lines, tests_lines, via_lines
from mediaproxy.explain.media import media_lines, phone_lines, question_lines, stream_lines
from mediaproxy.explain.odd import oddities
from mediaproxy.explain.relay import RelayAnswer
from mediaproxy.explain.streams import SdpStream, sdp_of, streams_of
from mediaproxy.explain.text import shown, shown_all, shown_lines
from mediaproxy.module import Result, RouteType, Run, drive, test_numbers
from mediaproxy.nat import Arrival, Verdict, named_tests, nat_tests, nat_uac_flags
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message
from mediaproxy.traversal import Facts, Plan, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A headed list of lines."""

    title: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.title}\n" + "".join(f"  {line}\n" for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the functions do to a message, whatever the tests say of it."""

    tests: Mapping[str, Verdict]
    "The verdict of each test: of 1, 2 and 4, then by the names of nat_test."
    nat_uac_test: int
    "The sum of nathelper's tests that hold."
    client_nat_test: Result
    "With the chosen tests."
    fix_contact: Result
    use_media_proxy: Result
    "Given the relay's answer; without one, what it is if the relay has ports."
    message: Message
    "What is sent on: with fix_contact, and given the relay's answer with use_media_proxy."
    streams: tuple[SdpStream, ...]
    "One per m= line of its SDP."
    plan: Plan
    "The question for the media arm."
    phone: PhoneAddress | None
    "The sender's address as the relay is told it; None if the message asks for no media."
    warnings: tuple[str, ...]
    "What is odd about the message."
    chapters: tuple[Chapter, ...] = ()
    rewritten: tuple[str, ...] = ()
    "Given the relay's answer: the lines of the message that is sent on."

    def __str__(self) -> str:
        pages = [str(chapter) for chapter in self.chapters]
        if self.rewritten:
            pages.append("The message that is sent on\n\n" + "".join(f"{line}\n" for line in self.rewritten))
        return "\n".join(pages)


def explain(
    message: Message,
    arrival: Arrival,
    policy: Policy,
    facts: Facts | None = None,
    *,
    tests: object = None,
    relay: RelayAnswer | None = None,
) -> Explanation:
    """Judge one message as it was captured.

    ``tests``: the argument of client_nat_test; None: the policy's. ``relay``: what the relay answers. ModuleError if
    ``tests`` is no sum of numbers, RelayError if a port of the answer leaves none for RTCP.
    """
    chosen = policy.nat_tests if tests is None else test_numbers("client_nat_test", tests)
    run = Run(message, arrival, policy, RouteType.REQUEST if message.is_request else RouteType.ONREPLY, facts)
    behind_nat = run.client_nat_test(chosen)
    fixed = run.fix_contact()
    media = run if relay is not None else run.again(run.route)
    done = drive(media.use_media_proxy(), (relay or RelayAnswer.pretended()).to)
    planned = plan(message, arrival, policy, run.facts)
    sdp = planned.sdp or sdp_of(message)
    told = Explanation(
        tests=_verdicts(run),
        nat_uac_test=nat_uac_flags(message, arrival),
        client_nat_test=behind_nat,
        fix_contact=fixed,
        use_media_proxy=done,
        message=run.message,
        streams=() if sdp is None else streams_of(sdp),
        plan=planned,
        phone=planned.request.phone if isinstance(planned.request, MediaRequest) else None,
        warnings=shown_all(oddities(message, arrival, planned)),
        rewritten=shown_lines(bytes(run.message)) if relay is not None else (),
    )
    streams = planned.streams or (sdp.streams if sdp is not None else ())
    said = media_lines(done, media.failure, relay is not None)
    return replace(told, chapters=tuple(_chapters(told, run, chosen, streams, said)))


def _verdicts(run: Run) -> dict[str, Verdict]:
    seen = (run.arrived, run.arrival, run.sip_asymmetric)
    named = {verdict.name: verdict for verdict in named_tests(*seen)}
    return {str(verdict.test): verdict for verdict in nat_tests(*seen)} | named


def _chapters(
    told: Explanation, run: Run, chosen: int, streams: Iterable[Stream], said: Iterable[str]
) -> Iterator[Chapter]:
    message, arrival = run.arrived, run.arrival
    yield _chapter("Message", message_lines(message, arrival, run.policy))
    uac = told.nat_uac_test
    yield _chapter("NAT test", tests_lines(message, told.tests, chosen, told.client_nat_test, uac))
    yield _chapter("Contact", contact_lines(message, arrival, run.sip_asymmetric))
    yield _chapter("Via", via_lines(message, arrival))
    if told.phone is not None:
        yield _chapter("The phone's address", phone_lines(told.phone))
    for number, one in enumerate(streams, 1):
        lines = stream_lines(one, told.phone, told.plan)
        yield _chapter(f"Stream {number}: {one.kind} over {one.transport}", lines)
    yield _chapter("Question to the media arm", question_lines(told.plan))
    yield _chapter("Media", said)
    if told.warnings:
        yield Chapter(title="Warnings", lines=told.warnings)


def _chapter(title: str, lines: Iterable[str]) -> Chapter:
    return Chapter(title=shown(title), lines=shown_all(lines))

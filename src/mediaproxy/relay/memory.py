"""Which questions a call has answered, so that a repeated one gets the same answer and an old one changes nothing.

Questions come in; "the same as then", "older than what we know", "offer" or "answer" go out. A question is known by
(sender's tag, receiver's tag, CSeq, hash of the SDP): INVITE, 183, 200 and a late offer's ACK share a CSeq. And by
whose CSeq it is: both parties count from 1, and Alice may answer Bob's INVITE 2 with the SDP of her own INVITE 2.
"""

from collections import deque

import msgspec

from mediaproxy.control import MediaPort, MediaRequest
from mediaproxy.events import Side
from mediaproxy.relay.offers import Transaction

_REMEMBERED = 64
"Answers kept per call. Only retransmissions ask again, within 32 s."

Ports = tuple[MediaPort | None, ...]


class Key(msgspec.Struct, frozen=True, array_like=True):
    """By what a question is known again."""

    sender: str
    receiver: str
    cseq: int
    sdp_hash: str
    requester: Side


class Counter(msgspec.Struct, frozen=True, array_like=True):
    """CSeq numbers count per requester and dialog (RFC 3261 §12.2.1.1); SDP of both parties travels under them."""

    sender: Side
    requester: Side
    tag: str


def callee_tag(question: MediaRequest, sender: Side) -> str:
    """The tag that names the leg."""
    return question.sender.tag if sender is Side.CALLEE else question.receiver.tag


def _latest(question: MediaRequest, sender: Side) -> tuple[Side, str]:
    """Where the last SDP of a party, or the last word about one stream of it, is noted."""
    tag = callee_tag(question, sender)
    return sender, f"{tag};{question.part}" if question.part else tag


def _requester(question: MediaRequest, sender: Side) -> Side:
    return sender if question.status == 0 else sender.other


def _key(question: MediaRequest, sender: Side) -> Key:
    tags = (question.sender.tag, question.receiver.tag)
    return Key(*tags, question.cseq, question.sdp_hash, _requester(question, sender))


def _counter(question: MediaRequest, sender: Side) -> Counter:
    return Counter(sender, _requester(question, sender), callee_tag(question, sender))


class Memory:
    """Mutable: the questions of one call."""

    def __init__(self) -> None:
        self._answers: dict[Key, Ports] = {}
        self._last: dict[Counter, int] = {}
        self._offers: dict[tuple[Side, str], deque[int]] = {}
        "(requester, callee's tag) -> CSeq of requests that had SDP."
        self._late: dict[tuple[Side, str], Transaction | None] = {}
        """(who offered in a response, callee's tag) -> the request that this hangs on, if that can still be refused.
        Until the answer comes in an ACK or PRACK."""
        self._refused: deque[Transaction] = deque(maxlen=8)
        self._latest: dict[tuple[Side, str], tuple[int, str]] = {}
        "(sender, callee's tag) -> CSeq and hash of its last SDP; -1: it came in a response."
        self.memos: dict[tuple[Side, str], str] = {}
        "(party, its tag if it is a callee) -> what the door wanted noted with its last SDP."

    def exchange(self, question: MediaRequest, sender: Side) -> tuple[str, str]:
        """Note what its door wants noted with this SDP. What was before, and what is with the receiver's."""
        tag = callee_tag(question, sender)
        own, other = (sender, ""), (sender.other, tag)
        if sender is Side.CALLEE:
            own, other = (sender, tag), (sender.other, "")
        before = self.memos.get(own, "")
        if question.memo:
            self.memos[own] = question.memo
        return before, self.memos.get(other, "")

    def number(self, question: MediaRequest, sender: Side, *, anew: bool) -> MediaRequest:
        """The question with a CSeq, if its door's protocol has none: SDP other than the sender's last is a new offer,
        the same is that one repeated (but ``anew``), and an answer is to the other party's last offer."""
        if question.cseq >= 0:
            return question
        cseq, known = self._latest.get(_latest(question, sender), (-1, ""))
        newest = max(0, self.newest(sender if question.status == 0 else sender.other))
        if question.status:
            cseq = newest
        elif question.part and cseq < newest and not anew:
            cseq = newest  # a further stream of the same offer
        elif cseq < 0 or anew or known != question.sdp_hash:
            cseq = newest + 1
        return msgspec.structs.replace(question, cseq=cseq)

    def answer(self, question: MediaRequest, sender: Side) -> Ports | None:
        """What the same question was answered; None: it is new."""
        return self._answers.get(_key(question, sender))

    def remember(self, question: MediaRequest, sender: Side, ports: Ports) -> None:
        """Note the answer to a question."""
        self._answers[_key(question, sender)] = ports
        if len(self._answers) > _REMEMBERED:
            del self._answers[next(iter(self._answers))]

    def forget(self, tag: str | None = None) -> None:
        """Forget the answers, or those of one leg: its ports are others now."""
        self._answers = {
            k: v for k, v in self._answers.items() if tag is not None and tag not in (k.sender, k.receiver)
        }

    def forget_leg(self, tag: str) -> None:
        """Forget everything about one leg."""
        self.forget(tag)
        self._last = {counter: cseq for counter, cseq in self._last.items() if counter.tag != tag}
        self._offers = {whose: cseqs for whose, cseqs in self._offers.items() if whose[1] != tag}
        self._late = {whose: by for whose, by in self._late.items() if whose[1] != tag}
        self._latest = {whose: last for whose, last in self._latest.items() if whose[1].partition(";")[0] != tag}
        self.memos = {whose: memo for whose, memo in self.memos.items() if not tag or whose[1] != tag}

    def stale(self, question: MediaRequest, sender: Side) -> bool:
        """Whether a question with a higher CSeq of the same count has been answered, or its request refused."""
        asked = _counter(question, sender)
        by = Transaction(requester=asked.requester, tag=asked.tag, cseq=question.cseq)
        if by in self._refused and question.status < 200:  # a 2xx has the last word all the same
            return True
        same = [
            cseq
            for known, cseq in self._last.items()
            if (known.sender, known.requester) == (asked.sender, asked.requester)
            and (not asked.tag or known.tag in (asked.tag, ""))
        ]
        if asked.sender is not asked.requester:  # a response: the initial request may have been repeated since
            same.append(self._last.get(Counter(asked.requester, asked.requester, ""), 0))
        return question.cseq < max(same, default=0)

    def offers(self, question: MediaRequest, sender: Side) -> bool:
        """Whether its SDP is an offer (RFC 3264, RFC 6337 §2): in a request, unless a response has offered before;
        in a response, if its request had no SDP."""
        tag = callee_tag(question, sender)
        if question.status == 0:
            return (sender.other, tag) not in self._late
        return not any(question.cseq in self._offers.get((sender.other, name), ()) for name in (tag, ""))

    def within(self, question: MediaRequest, sender: Side) -> bool:
        """Whether a response is to a request with SDP that came within the dialog."""
        tag = callee_tag(question, sender)
        return bool(tag) and question.cseq in self._offers.get((sender.other, tag), ())

    def late_offer(self, question: MediaRequest, sender: Side) -> Transaction | None:
        """What the offer hangs on that the question's SDP answers, if that can still be refused."""
        return self._late.get((sender.other, callee_tag(question, sender)))

    def refuse(self, by: Transaction) -> None:
        """A request was refused: its SDP and those of its provisional answers are of no use any more."""
        self._refused.append(by)
        self._late = {offered: late for offered, late in self._late.items() if late != by}
        self._answers = {
            key: ports
            for key, ports in self._answers.items()
            if (key.requester, key.cseq) != (by.requester, by.cseq) or by.tag not in (key.sender, key.receiver)
        }

    def note(self, question: MediaRequest, sender: Side, by: Transaction | None) -> None:
        """A new question was taken into account. ``by``: the request that it hangs on, if that can still be refused."""
        tag = callee_tag(question, sender)
        if question.status == 0:
            if self.offers(question, sender):
                self._offers.setdefault((sender, tag), deque(maxlen=8)).append(question.cseq)
            self._late.pop((sender.other, tag), None)
        elif self.offers(question, sender):
            self._late[sender, tag] = by
        self._last[_counter(question, sender)] = question.cseq
        self._latest[_latest(question, sender)] = (-1 if question.status else question.cseq, question.sdp_hash)

    def newest(self, sender: Side) -> int:
        """The highest CSeq of a request of that party; -1: none."""
        own = [cseq for counter, cseq in self._last.items() if counter.requester is sender]
        return max(own, default=-1)

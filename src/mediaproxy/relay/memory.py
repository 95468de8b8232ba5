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


class Asked(msgspec.Struct, frozen=True):
    """A question with its CSeq, and what it is known by."""

    question: MediaRequest
    sender: Side
    tag: str
    "Of the callee: names the leg."
    key: Key
    counter: Counter

    @classmethod
    def of(cls, question: MediaRequest, sender: Side) -> "Asked":
        """``sender``: which party has asked it."""
        one, other = question.sender.tag, question.receiver.tag
        tag = one if sender is Side.CALLEE else other
        requester = sender if question.status == 0 else sender.other
        key = Key(one, other, question.cseq, question.sdp_hash, requester)
        return cls(question, sender, tag, key, Counter(sender, requester, tag))


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

    def exchange(self, asked: Asked) -> tuple[str, str]:
        """Note what its door wants noted with this SDP. What was before, and what is with the receiver's."""
        own, other = (asked.sender, ""), (asked.sender.other, asked.tag)
        if asked.sender is Side.CALLEE:
            own, other = (asked.sender, asked.tag), (asked.sender.other, "")
        before = self.memos.get(own, "")
        if asked.question.memo:
            self.memos[own] = asked.question.memo
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

    def answer(self, asked: Asked) -> Ports | None:
        """What the same question was answered; None: it is new."""
        return self._answers.get(asked.key)

    def remember(self, asked: Asked, ports: Ports) -> None:
        """Note the answer to a question."""
        self._answers[asked.key] = ports
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

    def stale(self, asked: Asked) -> bool:
        """Whether a question with a higher CSeq of the same count has been answered, or its request refused."""
        requester, tag, cseq = asked.key.requester, asked.tag, asked.key.cseq
        by = Transaction(requester=requester, tag=tag, cseq=cseq)
        if by in self._refused and asked.question.status < 200:  # a 2xx has the last word all the same
            return True
        for known, last in self._last.items():
            same = known.sender is asked.sender and known.requester is requester
            if same and cseq < last and (not tag or known.tag in (tag, "")):
                return True
        # Of a response the initial request may have been repeated since.
        return asked.question.status != 0 and cseq < self._last.get(Counter(requester, requester, ""), 0)

    def offers(self, asked: Asked) -> bool:
        """Whether its SDP is an offer (RFC 3264, RFC 6337 §2): in a request, unless a response has offered before;
        in a response, if its request had no SDP."""
        if asked.question.status == 0:
            return (asked.sender.other, asked.tag) not in self._late
        cseq, other = asked.key.cseq, asked.sender.other
        return cseq not in self._offers.get((other, asked.tag), ()) and cseq not in self._offers.get((other, ""), ())

    def within(self, asked: Asked) -> bool:
        """Whether a response is to a request with SDP that came within the dialog."""
        return bool(asked.tag) and asked.key.cseq in self._offers.get((asked.sender.other, asked.tag), ())

    def late_offer(self, asked: Asked) -> Transaction | None:
        """What the offer hangs on that the question's SDP answers, if that can still be refused."""
        return self._late.get((asked.sender.other, asked.tag))

    def refuse(self, by: Transaction) -> None:
        """A request was refused: its SDP and those of its provisional answers are of no use any more."""
        self._refused.append(by)
        self._late = {offered: late for offered, late in self._late.items() if late != by}
        self._answers = {
            key: ports
            for key, ports in self._answers.items()
            if (key.requester, key.cseq) != (by.requester, by.cseq) or by.tag not in (key.sender, key.receiver)
        }

    def note(self, asked: Asked, by: Transaction | None) -> None:
        """A new question was taken into account. ``by``: the request that it hangs on, if that can still be refused."""
        question, sender, tag = asked.question, asked.sender, asked.tag
        if question.status == 0:
            if self.offers(asked):
                self._offers.setdefault((sender, tag), deque(maxlen=8)).append(question.cseq)
            self._late.pop((sender.other, tag), None)
        elif self.offers(asked):
            self._late[sender, tag] = by
        self._last[asked.counter] = question.cseq
        self._latest[_latest(question, sender)] = (-1 if question.status else question.cseq, question.sdp_hash)

    def newest(self, sender: Side) -> int:
        """The highest CSeq of a request of that party; -1: none."""
        newest = -1
        for counter, cseq in self._last.items():
            if counter.requester is sender and cseq > newest:
                newest = cseq
        return newest

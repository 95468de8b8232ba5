"""What SIP servers have asked by the NG protocol, counted for its command ``statistics``.

Commands that are done come in, numbers in rtpengine's words go out. Time is an argument. SIP servers are told apart by
their address, up to a number of them.
"""

from mediaproxy.dialects.ng.bencode import Answer

SHORT = {
    "ping": "ping",
    "offer": "offer",
    "answer": "answer",
    "delete": "delete",
    "query": "query",
    "list": "list",
    "statistics": "stats",
    "start recording": "startrec",
    "stop recording": "stoprec",
    "start forwarding": "startfwd",
    "stop forwarding": "stopfwd",
    "block DTMF": "blkdtmf",
    "unblock DTMF": "unblkdtmf",
    "block media": "blkmedia",
    "unblock media": "unblkmedia",
    "silence media": "slnmedia",
    "unsilence media": "unslnmedia",
    "play media": "playmedia",
    "stop media": "stopmedia",
    "play DTMF": "playdtmf",
    "publish": "pub",
    "subscribe request": "subreq",
    "subscribe answer": "subans",
    "unsubscribe": "unsub",
}
"Commands, and what statistics call them."
PROXIES = 256
"SIP servers told apart; those that come later are counted in the totals only."
INTERVAL = 60.0
"Seconds of the interval of which the least, the most and the average are told, when it is over."


class _Proxy:
    """What one SIP server has asked. Mutable."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(SHORT, 0)
        self.seconds = dict.fromkeys(SHORT, 0.0)
        self.errors = 0

    def told(self, name: str) -> Answer:
        told: Answer = {"proxy": name, "errorcount": self.errors}
        for command, short in SHORT.items():
            told[f"{short}count"] = self.counts[command]
            told[f"{short}duration"] = f"{self.seconds[command]:.6f}"
        return told


class _Interval:
    """The commands of a minute. Mutable."""

    def __init__(self) -> None:
        self.delays: dict[str, list[float]] = {}
        "By command: how many, seconds together, the least, the most."

    def note(self, command: str, seconds: float) -> None:
        known = self.delays.get(command)
        if known is None:
            self.delays[command] = [1, seconds, seconds, seconds]
        else:
            known[0] += 1
            known[1] += seconds
            known[2] = min(known[2], seconds)
            known[3] = max(known[3], seconds)

    def told(self) -> Answer:
        told: Answer = {}
        for command in SHORT:
            number, together, least, most = self.delays.get(command, (0, 0.0, 0.0, 0.0))
            told[f"min{command}delay"] = f"{least:.6f}"
            told[f"max{command}delay"] = f"{most:.6f}"
            told[f"avg{command}delay"] = f"{together / number if number else 0.0:.6f}"
            for part in ("min", "max", "avg"):
                told[f"{part}{command}requestrate"] = f"{number / INTERVAL:.0f}"
        return told


class Tally:
    """All of it, one per server. Mutable."""

    def __init__(self) -> None:
        self._proxies: dict[str, _Proxy] = {}
        self._all = _Proxy()
        self._now = _Interval()
        self._last = _Interval()
        self._began = 0.0
        self.rejected = 0
        "Offers that a limit turned away."
        self.before = (0.0, 0, 0, 0)
        "When statistics were asked for last, and what relays had forwarded then: packets, bytes, errors."
        self._talked = (0.0, 0.0, 0.0)
        "Since when talking time is told, how much there had been then, and how much when it was asked for last."

    def note(self, command: str, host: str, seconds: float, now: float, *, error: bool) -> None:
        """A command is done; ``seconds``: how long that took."""
        if now >= self._began + INTERVAL:
            self._last = self._now if now < self._began + 2 * INTERVAL else _Interval()
            self._now, self._began = _Interval(), now
        proxy = self._proxies.get(host)
        if proxy is None and len(self._proxies) < PROXIES:
            proxy = self._proxies[host] = _Proxy()
        for one in (self._all, proxy):
            if one is None:
                continue
            one.errors += error
            if command in SHORT:
                one.counts[command] += 1
                one.seconds[command] += seconds
        if command in SHORT:
            self._now.note(command, seconds)

    def since(self, now: float, seconds: float) -> float:
        """Of the talking time of all ended calls, what has come since it was asked for in an earlier minute."""
        began, before, last = self._talked
        if seconds < last:
            before = last = 0.0  # relays have begun anew
        if now >= began + INTERVAL:
            began, before = now, last
        self._talked = began, before, seconds
        return seconds - before

    def control(self) -> Answer:
        """``controlstatistics``."""
        told: Answer = {"proxies": [proxy.told(host) for host, proxy in self._proxies.items()]}
        return told | {f"total{short}count": self._all.counts[command] for command, short in SHORT.items()}

    def interval(self) -> Answer:
        """``intervalstatistics``: of the last whole minute."""
        return self._last.told()

"""What a SIP server keeps of a party's media from the other party (control.Switch)."""

import msgspec

from mediaproxy.control import Switch

_MARKS = {Switch.BLOCK: 1, Switch.UNBLOCK: 1, Switch.SILENCE: 2, Switch.UNSILENCE: 2}


class Gate(msgspec.Struct, array_like=True):
    """Mutable: one party's, for all its streams, whatever is offered meanwhile. Who was blocked by name stays blocked
    when the whole call no longer is, and the other way round."""

    blocked: bool = False
    silenced: bool = False
    "Now, whichever way it was asked for."
    alone: int = 0
    "What was asked for this party: 1 to block, 2 to silence it, 3 both."
    whole: int = 0
    "The same for the whole call."

    def turn(self, switch: Switch, *, whole: bool, everybody: bool = False) -> None:
        """Switch it. ``whole``: the call's, not this party's; ``everybody``: no party stays as it was."""
        mark, shut = _MARKS[switch], switch in (Switch.BLOCK, Switch.SILENCE)
        if whole:
            self.whole = self.whole | mark if shut else self.whole & ~mark
        if not whole or (everybody and not shut):
            self.alone = self.alone | mark if shut else self.alone & ~mark
        asked = bool((self.alone | self.whole) & mark)
        if mark == _MARKS[Switch.BLOCK]:  # the other one may be of a journal of before, which tells no more than that
            self.blocked = asked
        else:
            self.silenced = asked

    @property
    def name(self) -> str:
        """What it does, for reports; empty: nothing."""
        return "block" if self.blocked else "silence" if self.silenced else ""

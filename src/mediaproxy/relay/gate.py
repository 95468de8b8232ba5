"""What a SIP server keeps of a party's media from the other party (control.Switch)."""

import msgspec

from mediaproxy.control import Switch


class Gate(msgspec.Struct, array_like=True):
    """Mutable: one party's, for all its streams, whatever is offered meanwhile."""

    blocked: bool = False
    silenced: bool = False

    def turn(self, switch: Switch) -> None:
        """Switch it."""
        match switch:
            case Switch.BLOCK:
                self.blocked = True
            case Switch.UNBLOCK:
                self.blocked = False
            case Switch.SILENCE:
                self.silenced = True
            case Switch.UNSILENCE:
                self.silenced = False

    @property
    def name(self) -> str:
        """What it does, for reports; empty: nothing."""
        return "block" if self.blocked else "silence" if self.silenced else ""

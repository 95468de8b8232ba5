"""The error numbers of rtpproxy: what it answers as ``E`` and a number, each in the case in which the original does."""

from enum import IntEnum


class Code(IntEnum):
    """Numbers and meanings are the original's (``rtpp_command_ecodes.h``); those about its memory never come."""

    UNKNOWN_COMMAND = 0
    ARGUMENTS = 1
    "Too few or too many for the command."
    MODIFIERS = 2
    "The command takes none."
    SUBCOMMAND = 3
    "The command takes no ``&&``: none does here."
    SYNTAX = 5
    "No command, far too many words, or an empty subcommand."
    RECORD_MODIFIER = 6
    "Something follows the ``s`` of R or C, or the ``a`` of N."
    RECORD_UNKNOWN = 7
    "R, C and N: another modifier."
    DELETE_MODIFIER = 8
    COUNTERS_MODIFIER = 9
    "Of G."
    NOTIFY_TAG = 10
    "The tag of the timeout socket is no URL encoding."
    EXTERNAL = 11
    "``e``: given a third time, or there is no such address."
    INTERNAL = 12
    "The same of ``i``."
    PTIME = 13
    "``z`` without a number from 1 to 999."
    CODECS = 14
    "``c`` given twice."
    LOCAL_SYNTAX = 15
    "``l`` without an address."
    REMOTE_SYNTAX = 16
    "``r`` without an address."
    PLAY_COUNT = 17
    INFO_MODIFIER = 18
    QUERY_MODIFIER = 19
    LOCAL_ADDRESS = 31
    "``l``: not one of this relay's."
    REMOTE_ADDRESS = 32
    UNKNOWN_MODIFIER = 35
    "Of U and L; also of P, ``session`` where no codecs are known."
    ADDRESS_FAMILY = 36
    "No local address of the version wanted."
    MEDIA_ADDRESS = 37
    "The address or port of U and L cannot be read."
    UNKNOWN_SESSION = 50
    PLAYER = 60
    "Playing is not done here."
    QUERY = 62
    "Q: a counter that is not kept."
    COPY = 65
    "Recording and copying are not done here."
    COUNTERS = 68
    "G: a counter that is not kept."
    NO_PORT = 72
    OVERLOAD = 98
    "No relay can take it, or none has answered in time."


class Refusal(Exception):
    """A command that is answered with a number."""

    def __init__(self, code: Code) -> None:
        super().__init__(f"E{int(code)}")
        self.code = code

"""Reading the keys and words of an NG request into the fields of a Command.

A key with its value comes in at a time, fields go out. Nothing is raised: what cannot be read is as if it were not
there, what nobody knows is collected.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mediaproxy.dialects.ng import words
from mediaproxy.dialects.ng.raw import DEEPEST, parsed
from mediaproxy.dialects.ng.wanted import Codecs, Edits
from mediaproxy.dialects.ng.words import normal
from mediaproxy.endpoint import address_text

_MOST_UNKNOWN = 16
_LARGEST = 9_999_999_999
"Of numbers, either way: larger ones mean no more, and not all that is done with numbers could be done with them."


class Reader:
    """Mutable: what has been read so far."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._sets: dict[str, list[str]] = {}
        self._flags: set[str] = set()
        self._codecs: dict[str, list[str]] = {}
        self._attributes: dict[str, dict[str, list[Any]]] = {}
        self._direction: dict[int, str] = {}
        self._needs: dict[str, str] = {}
        self._unknown: list[str] = []

    def fields(self) -> dict[str, Any]:
        """All of it: of Command, by name."""
        direction = tuple(self._sets.pop("direction", ()))[:2]
        if self._direction:
            direction = tuple(self._direction.get(n, name) for n, name in enumerate((*direction, "", "")[:2]))
        from_tags = tuple(self._sets.pop("from_tags", ()))
        fields = {**self._fields, **{name: frozenset(items) for name, items in self._sets.items()}}
        if not 0 <= fields.get("tos", 0) <= 255:
            del fields["tos"]
        if "webrtc" in self._flags:
            self._browser(fields)
        if not fields.get("label"):
            fields["label"] = fields.get("set_label", "")
        codecs = {operation: tuple(names) for operation, names in self._codecs.items()}
        codecs["excepted"] = codecs.pop("except", ())
        parts = self._attributes.items()
        return {
            **fields,
            "direction": direction,
            "from_tags": from_tags,
            "flags": frozenset(self._flags),
            "codecs": Codecs(**codecs),
            "attributes": {part: Edits(**{k: tuple(v) for k, v in edits.items()}) for part, edits in parts},
            "needs": tuple(self._needs.items()),
            "unknown": tuple(self._unknown),
        }

    def _browser(self, fields: dict[str, Any]) -> None:
        """What ``WebRTC`` stands for."""
        fields.setdefault("transport", "UDP/TLS/RTP/SAVPF")
        fields.setdefault("ice", frozenset(("force",)))
        fields["rtcp_mux"] = fields.get("rtcp_mux", frozenset()) | {"offer", "require"}
        self._flags |= {"trickle-ice", "no-rtcp-attribute", "generate-mid"}

    # -- keys

    def key(self, written: str, value: Any, depth: int) -> None:
        """One key with its value."""
        key = normal(written)
        special = getattr(self, f"_key_{_METHODS[key]}", None) if key in _METHODS else None
        if special is not None:
            special(value, depth)
        elif key in words.TEXTS:
            text = text_of(value)
            self._fields[words.TEXTS[key]] = text if key not in _LOWER else normal(text)
            self._judge(key, written, (text,))
        elif key in words.INTEGERS:
            number = _integer(value)
            if number is not None:
                self._fields[words.INTEGERS[key]] = number
        elif key in words.LISTS:
            self._list(key, written, value)
        elif key not in words.NOTHING and not self._operation(key, value) and not self._need(key, written, value):
            self._note(written)

    def _operation(self, key: str, value: Any) -> bool:
        """``codec-strip=PCMA``, which is ``codec-strip-PCMA``."""
        operation = "transcode" if key == "transcode" else key.removeprefix("codec-")
        if operation not in words.CODEC_OPERATIONS or (operation == key and key != "transcode"):
            return False
        for name in _texts(value):
            self._codec(operation, name)
        return True

    def _list(self, key: str, written: str, value: Any) -> None:
        field, items = words.LISTS[key], list(_texts(value))
        self._sets.setdefault(field, []).extend(items if field in words.EXACT else map(normal, items))
        self._judge(key, written, items)
        if isinstance(value, dict):
            self._note(written)

    def _judge(self, key: str, written: str, items: Iterable[str]) -> None:
        """Note the values that nobody knows."""
        known = words.VALUES.get(key)
        if known is not None:
            for item in items:
                if item and normal(item) not in known:
                    self._note(f"{written.strip()}={item}")

    def _need(self, key: str, written: str, value: Any) -> bool:
        """Whether a key is one of those that need what nobody here does, or would if its value asked for it. A word of
        ``flags`` has no value, None, and asks for it."""
        detecting = "detecting DTMF" if key.startswith(words.DETECTING) else ""
        what = next((what for known, what in _NEEDS if key in known), detecting)
        asked = "" if value is None else text_of(value)
        if what and (value is None or normal(asked) not in words.OFF or (isinstance(value, (list, dict)) and value)):
            self._needs[f"{written.strip()}={asked}" if asked else written.strip()] = what
        return bool(what)

    def _note(self, word: str) -> None:
        if word not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.append(word[:64])

    def _key_command(self, value: Any, depth: int) -> None:
        """It counts as it is usually written only (flags)."""

    def _key_sdp(self, value: Any, depth: int) -> None:
        if isinstance(value, (bytes, str)):
            self._fields["sdp"] = text_of(value).encode("latin-1")

    def _key_received(self, value: Any, depth: int) -> None:
        address = received(value)
        if address is not None:
            self._fields["received_from"] = address

    def _key_family(self, value: Any, depth: int) -> None:
        text = normal(text_of(value))
        if text.startswith(("ip4", "ipv4", "inet4")) or text in ("4", "inet"):
            self._fields["family"] = 4
        elif text.startswith(("ip6", "ipv6", "inet6")) or text == "6":
            self._fields["family"] = 6
        else:
            self._note(f"address family={text_of(value)}")

    def _key_from_interface(self, value: Any, depth: int) -> None:
        self._direction[0] = text_of(value)

    def _key_to_interface(self, value: Any, depth: int) -> None:
        self._direction[1] = text_of(value)

    def _key_interface(self, value: Any, depth: int) -> None:
        self._direction.setdefault(0, text_of(value))
        self._direction.setdefault(1, text_of(value))

    def _key_transport(self, value: Any, depth: int) -> None:
        """``accept`` is how answers are treated anyway."""
        text = text_of(value).strip()
        if text.lower() in words.TRANSPORTS:
            self._fields["transport"] = text
        elif text and normal(text) != "accept":
            self._note(f"transport-protocol={text}")

    def _key_codec(self, value: Any, depth: int) -> None:
        if isinstance(value, dict):
            for operation, names in value.items():
                for name in _texts(names):
                    self._codec(normal(text_of(operation)), name)
        else:
            self._note("codec")

    def _key_attributes(self, value: Any, depth: int) -> None:
        if not isinstance(value, dict):
            self._note("sdp-attr")
            return
        for part, edits in value.items():
            if isinstance(edits, dict):
                for operation, items in edits.items():
                    self._edit(normal(text_of(part)), normal(text_of(operation)), items)

    def _key_extmap(self, value: Any, depth: int) -> None:
        names = value.get(b"strip", value.get("strip")) if isinstance(value, dict) else None
        if names is not None and "all" in map(normal, _texts(names)):
            self._flags.add("strip-extmap")
        else:
            self._note("extmap")

    def _key_flags(self, value: Any, depth: int) -> None:
        for word in _texts(value):
            self.word(word, depth)
        for name, content in value.items() if isinstance(value, dict) and depth < DEEPEST else ():
            # ``flags=[trust-address label=x]`` in the raw text, of which one has a value.
            if content == b"":
                self.word(text_of(name), depth)
            else:
                self.key(text_of(name), content, depth + 1)

    def _key_raw(self, value: Any, depth: int) -> None:
        bits: int | None = None
        for word, content in parsed(text_of(value)) if depth < DEEPEST else ():
            if content is not None:
                self.key(word, content, depth + 1)
                if normal(word) == "from-tag":  # who is named there is meant alone
                    self._flags.add("directional")
            elif word.upper() in words.PARTS:
                left, added = words.PARTS[word.upper()]
                bits = (bits or 0) & left | added
            else:
                self.word(word, depth + 1)
        if bits is not None:
            self._fields["transport"] = words.PROFILES[bits]

    # -- words of ``flags``

    def word(self, written: str, depth: int = 0) -> None:
        """One word of a list of flags."""
        word = normal(written)
        name, equals, value = written.partition("=")
        if word in words.FLAGS:
            self._flags.discard(words.OPPOSITES.get(word, ""))
            self._flags.add(word)
        elif equals and not word.startswith("sdp-attr-"):
            self.key(name, value.encode("latin-1"), depth)
        elif word in words.TRANSPORTS:
            self._fields["transport"] = words.TRANSPORTS[word]
        elif word in ("internal", "external"):
            self._sets.setdefault("direction", []).append(word)
        elif not self._prefixed(word, written) and not self._need(word, written, None):
            self._note(written)

    def _prefixed(self, word: str, written: str) -> bool:
        if word.startswith("codec-"):
            operation = word.split("-", 2)[1]
            if operation in words.CODEC_OPERATIONS and len(word) > len(operation) + 7:
                self._codec(operation, written.strip()[len(operation) + 7 :])
                return True
        if word.startswith("transcode-") and len(word) > 10:
            self._codec("transcode", written.strip()[10:])
            return True
        if word.startswith("sdp-attr-"):
            return self._attribute_word(written.strip()[9:])
        for prefix, key in words.PREFIXES.items():
            if word.startswith(prefix) and len(word) > len(prefix):
                self.key(key, written.strip()[len(prefix) :].encode("latin-1"), 0)
                return True
        return False

    def _codec(self, operation: str, name: str) -> None:
        if operation in ("strip", "except", "offer", "mask"):
            self._codecs.setdefault(operation, []).append(name)
        elif operation in ("transcode", "consume", "accept", "set"):
            self._needs[f"codec-{operation}-{name}"] = "transcoding"
        elif operation != "ignore":
            self._note(f"codec-{operation}-{name}")

    def _attribute_word(self, rest: str) -> bool:
        """``add-audio-sendonly``, ``substitute-global-a>b``: ``..`` stands for a space, ``--`` for ``=``."""
        operation, _, rest = rest.partition("-")
        part, _, value = rest.partition("-")
        value = value.replace("..", " ").replace("--", "=")
        if not value:
            return False
        written = value.encode("latin-1")
        items: Any = [written.partition(b">")[::2]] if normal(operation) == "substitute" else [written]
        return self._edit(normal(part), normal(operation), items)

    def _edit(self, part: str, operation: str, items: Any) -> bool:
        if operation == "substitute" and isinstance(items, list):
            pairs = [tuple(_texts(list(item)))[:2] for item in items if isinstance(item, (list, tuple))]
            found: list[Any] = [pair for pair in pairs if len(pair) == 2]
        elif operation in ("add", "remove"):
            found = list(_texts(items))
        else:
            self._note(f"sdp-attr-{operation}")
            return True
        self._attributes.setdefault(part, {}).setdefault(operation, []).extend(found)
        return True


_METHODS = {
    "command": "command",
    "sdp": "sdp",
    "received-from": "received",
    "address-family": "family",
    "from-interface": "from_interface",
    "to-interface": "to_interface",
    "interface": "interface",
    "codec": "codec",
    "transport-protocol": "transport",
    "sdp-attr": "attributes",
    "extmap": "extmap",
    "flags": "flags",
    "rtpp-flags": "raw",
}
_LOWER = frozenset(("endpoint-learning", "ice-lite", "sip-message-type", "all", "drop-traffic"))
_NEEDS = (
    (words.RECORDING, "recording"),
    (words.TRANSCODING, "transcoding"),
    (words.SRTP, "SRTP termination"),
    (words.PLAYING, "playing media"),
)


def received(value: Any) -> str | None:
    """The address in ``received-from``, canonical: ``["IP4", "192.0.2.1"]`` or ``IP4:192.0.2.1``."""
    texts = list(_texts(value))
    last = texts[-1] if texts else ""
    return address_text(last[4:] if last[:4].upper() in ("IP4:", "IP6:") else last)


def text_of(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "surrogatepass").decode("latin-1")
    return str(int(value)) if isinstance(value, int) else ""


def _texts(value: Any) -> Iterator[str]:
    """The texts of a list, or of a text with commas."""
    if isinstance(value, (bytes, str)):
        yield from filter(None, (item.strip() for item in text_of(value).split(",")))
    elif isinstance(value, Iterable) and not isinstance(value, dict):
        yield from (text_of(item) for item in value if isinstance(item, (bytes, str, int)))


def _integer(value: Any) -> int | None:
    if isinstance(value, int):
        return max(-_LARGEST, min(int(value), _LARGEST))
    text = text_of(value).strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else None

"""The words of rtpengine's NG protocol: which there are, and what each needs.

Tables only. A word is written with hyphens, in lower case; ``normal`` brings any spelling to that.
"""

TEXTS = {
    "call-id": "call_id",
    "from-tag": "from_tag",
    "to-tag": "to_tag",
    "via-branch": "via_branch",
    "label": "label",
    "from-label": "label",
    "to-label": "to_label",
    "set-label": "set_label",
    "address": "address",
    "all": "all",
    "xmlrpc-callback": "notify",
    "sip-message-type": "message_type",
    "media-address": "media_address",
    "endpoint-learning": "learning",
    "ice-lite": "ice_lite",
    "drop-traffic": "drop_traffic",
}
"Key -> field of Command that holds its text."

INTEGERS = {
    "tos": "tos",
    "delete-delay": "delete_delay",
    "limit": "limit",
    "sip-code": "code",
    "ptime": "ptime",
    "ptime-reverse": "ptime",
    "repacketize": "ptime",
    "delay-buffer": "delay_buffer",
}
"Key -> field of Command that holds its number."

LISTS = {
    "direction": "direction",
    "supports": "supports",
    "from-tags": "from_tags",
    "sdp-media-remove": "media_remove",
    "ice": "ice",
    "replace": "replace",
    "rtcp-mux": "rtcp_mux",
    "bundle": "bundle",
    "sdes": "sdes",
    "osrtp": "osrtp",
    "t.38": "t38",
    "t38": "t38",
    "dtls": "dtls",
    "dtls-reverse": "dtls",
}
"Key -> field of Command that holds its words."

VALUES = {
    "supports": frozenset(("load-limit",)),
    "ice": frozenset(
        ("remove", "force", "force-relay", "default", "optional", "trickle", "ice2")
        + ("lite-forward", "lite-backward", "lite-both", "lite-off")
    ),
    "replace": frozenset(
        ("origin", "origin-full", "session-connection", "session-name", "username", "zero-address")
        + ("sdp-version", "force-increment-sdp-ver")
    ),
    "rtcp-mux": frozenset(("offer", "require", "demux", "accept", "reject")),
    "bundle": frozenset(("offer", "require", "accept", "reject", "strict")),
    "endpoint-learning": frozenset(("off", "immediate", "delayed", "heuristic")),
    "ice-lite": frozenset(("forward", "backward", "both", "off")),
    "drop-traffic": frozenset(("start", "stop")),
}
"Key -> the values that somebody knows, of keys that have no others."

EXACT = frozenset(("direction", "from_tags"))
"Of these, lists of names, which are taken as they are written."

PREFIXES = {
    "replace-": "replace",
    "rtcp-mux-": "rtcp-mux",
    "bundle-": "bundle",
    "sdes-": "sdes",
    "osrtp-": "osrtp",
    "t38-": "t.38",
    "endpoint-learning-": "endpoint-learning",
    "ice-lite-": "ice-lite",
    "drop-traffic-": "drop-traffic",
    "ice-": "ice",
    "from-tags-": "from-tags",
    "sdp-media-remove-": "sdp-media-remove",
    "generate-rtcp-": "generate-rtcp",
}
"Beginning of a word in ``flags`` -> key whose value the rest is."

CODEC_OPERATIONS = frozenset(("strip", "except", "offer", "mask", "ignore", "transcode", "consume", "accept", "set"))

TRANSPORTS = {
    name.lower(): name
    for name in (
        "RTP/AVP",
        "RTP/AVPF",
        "RTP/SAVP",
        "RTP/SAVPF",
        "UDP/TLS/RTP/SAVP",
        "UDP/TLS/RTP/SAVPF",
        "udptl",
    )
}
"Those that a word of its own may name, as rtpengine writes them."

SRTP_BIT, FEEDBACK_BIT, DTLS_BIT = 1, 2, 4
PARTS = {
    "RTP": (~SRTP_BIT, 0),
    "SRTP": (~0, SRTP_BIT),
    "AVP": (~FEEDBACK_BIT, 0),
    "AVPF": (~0, FEEDBACK_BIT),
    "DTLS": (~0, DTLS_BIT),
}
"Words of ``rtpp-flags`` of which a transport is made, and the bits that each leaves and sets."
PROFILES = ("RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF") + 2 * ("UDP/TLS/RTP/SAVP",) + 2 * ("UDP/TLS/RTP/SAVPF",)
"By these bits."

FLAGS = frozenset(
    (
        # where media goes, and whom to hear
        "trust-address",
        "sip-source-address",
        "symmetric",
        "asymmetric",
        "strict-source",
        "media-handover",
        "port-latching",
        "no-port-latching",
        "unidirectional",
        "nat-wait",
        "pierce-nat",
        "reset",
        # the SDP
        "no-rtcp-attribute",
        "full-rtcp-attribute",
        "generate-mid",
        "original-sendrecv",
        "strip-extmap",
        "loop-protect",
        "fragment",
        "reject-ice",
        "trickle-ice",
        "no-tls-id",
        "single-codec",
        "allow-no-codec-media",
        # what only a transcoder would heed
        "reuse-codecs",
        "no-codec-renegotiation",
        "static-codecs",
        "symmetric-codecs",
        "asymmetric-codecs",
        "allow-asymmetric-codecs",
        "allow-transcoding",
        "no-jitter-buffer",
        # the call
        "new-branch",
        "provisional",
        "no-redis-update",
        "debug",
        "early-media",
        "passthrough",
        "no-passthrough",
        "webrtc",
        # other commands
        "all",
        "directional",
        "bidirectional",
        "egress",
        "mix",
        "inactive",
        "rtcp-mirror",
        "unsubscribe",
        "to-tag",
        "fatal",
        "fast",
    )
)
"Words of ``flags`` that are understood."

OPPOSITES = {
    "trust-address": "sip-source-address",
    "sip-source-address": "trust-address",
    "port-latching": "no-port-latching",
    "no-port-latching": "port-latching",
}
"Of these the last one counts."

RECORDING = frozenset(("record-call", "siprec", "start-recording", "recording-announcement", "recording-vsc"))
TRANSCODING = frozenset(
    (
        "always-transcode",
        "force-transcoding",
        "force-transcode",
        "inject-dtmf",
        "block-dtmf",
        "dtmf-security",
        "detect-dtmf",
        "audio-player",
        "generate-rtcp",
        "media-echo",
    )
)
"Words that need the media to be decoded, or made."
SRTP = frozenset(("recrypt",))
"Words that need SRTP to be ended here."
PLAYING = frozenset(("moh",))
"Words that need media to be played."
DETECTING = ("dtmf-", "trigger")
"How further words begin that need digits to be found in the media."

NOTHING = frozenset(
    ("metadata", "passthrough", "recording-file", "recording-dir", "recording-pattern")
    + ("recording-media-slot-offer", "recording-media-slot-answer", "volume", "frequency", "frequencies")
)
"Keys that are understood, and need nothing unless there is a recording or a tone."

OFF = frozenset(("", "off", "no", "none", "disable", "disabled", "0"))
"Values that ask for nothing."


def normal(word: str) -> str:
    """The one spelling of a word: lower case, hyphens."""
    return word.strip().lower().replace(" ", "-").replace("_", "-")

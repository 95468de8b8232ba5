"""Command: every way in which a request may write the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.ng.bencode import entries
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.wanted import Codecs, Edits


def command(**keys: Any) -> Command:
    """Of a dictionary whose keys are written with underscores."""
    return Command.of({key.encode(): value for key, value in keys.items()})


@pytest.mark.parametrize(
    ("key", "value", "field", "meant"),
    [
        (b"command", b"block media", "name", "block media"),
        ("command", "offer", "name", "offer"),
        (b"call-id", b"c\xff", "call_id", "c\xff"),
        ("call-id", "c\u20ac", "call_id", "c\xe2\x82\xac"),
        (b"call_id", b"c", "call_id", "c"),
        (b"call id", b"c", "call_id", "c"),
        (b"CALL-ID", b"c", "call_id", "c"),
        (b"from-tag", b"a", "from_tag", "a"),
        (b"to-tag", 17, "to_tag", "17"),
        (b"via-branch", b"z", "via_branch", "z"),
        (b"label", b"x", "label", "x"),
        (b"from-label", b"x", "label", "x"),
        (b"set-label", b"x", "label", "x"),
        (b"to-label", b"x", "to_label", "x"),
        (b"address", b"192.0.2.1", "address", "192.0.2.1"),
        (b"all", b"all", "all", "all"),
        (b"xmlrpc-callback", b"192.0.2.1", "notify", "192.0.2.1"),
        (b"SIP message type", b"Response", "message_type", "response"),
        (b"SIP code", b"183", "code", 183),
        (b"sip-code", 183, "code", 183),
        (b"sdp", b"v=0", "sdp", b"v=0"),
        ("SDP", "v=0\u20ac", "sdp", b"v=0\xe2\x82\xac"),
        (b"sdp", 7, "sdp", None),
        (b"received from", [b"IP4", b"192.0.2.1"], "received_from", "192.0.2.1"),
        (b"received-from", b"192.0.2.1", "received_from", "192.0.2.1"),
        (b"received-from", b"IP4:192.0.2.1", "received_from", "192.0.2.1"),
        (b"received_from", [b"IP6", b"2001:DB8::1"], "received_from", "2001:db8::1"),
        (b"received-from", [b"IP4", b"phone.example"], "received_from", ""),
        (b"received-from", [], "received_from", ""),
        (b"media address", b"192.0.2.1", "media_address", "192.0.2.1"),
        (b"address family", b"IP6", "family", 6),
        (b"address-family", b"inet4", "family", 4),
        (b"address-family", b"IP5", "family", 0),
        (b"direction", [b"int", b"ext"], "direction", ("int", "ext")),
        (b"direction", [b"Int_x", b"ext", b"more"], "direction", ("Int_x", "ext")),
        (b"direction", b"int,ext", "direction", ("int", "ext")),
        (b"from-interface", b"int", "direction", ("int", "")),
        (b"to-interface", b"ext", "direction", ("", "ext")),
        (b"interface", b"int", "direction", ("int", "int")),
        (b"flags", [b"internal", b"external"], "direction", ("internal", "external")),
        (b"TOS", 184, "tos", 184),
        (b"tos", b"184", "tos", 184),
        (b"TOS", -1, "tos", None),
        (b"TOS", 256, "tos", None),
        (b"TOS", b"x", "tos", None),
        (b"endpoint-learning", b"Off", "learning", "off"),
        (b"flags", [b"endpoint-learning-off"], "learning", "off"),
        (b"transport protocol", b"RTP/AVP", "transport", "RTP/AVP"),
        (b"transport protocol", b"accept", "transport", ""),
        (b"flags", [b"RTP/SAVPF"], "transport", "RTP/SAVPF"),
        (b"flags", [b"udp/tls/rtp/savpf"], "transport", "UDP/TLS/RTP/SAVPF"),
        (b"ICE", b"force-relay", "ice", frozenset({"force-relay"})),
        (b"ice", b"force relay", "ice", frozenset({"force-relay"})),
        (b"ICE", [b"force", b"trickle"], "ice", frozenset({"force", "trickle"})),
        (b"flags", [b"ICE-remove"], "ice", frozenset({"remove"})),
        (b"rtcp-mux", [b"offer", b"require"], "rtcp_mux", frozenset({"offer", "require"})),
        (b"rtcp-mux", b"offer, require", "rtcp_mux", frozenset({"offer", "require"})),
        (b"flags", [b"rtcp-mux-demux"], "rtcp_mux", frozenset({"demux"})),
        (b"replace", [b"origin", b"SDP version"], "replace", frozenset({"origin", "sdp-version"})),
        (b"flags", [b"replace-session-connection"], "replace", frozenset({"session-connection"})),
        (b"supports", [b"load limit"], "supports", frozenset({"load-limit"})),
        (b"from-tags", [b"A b"], "from_tags", ("A b",)),
        (b"flags", [b"from-tags-A"], "from_tags", ("A",)),
        (b"delete delay", 5, "delete_delay", 5),
        (b"delete-delay", b"5", "delete_delay", 5),
        (b"delete-delay", b"5.5", "delete_delay", None),
        (b"limit", -1, "limit", -1),
        (b"limit", 10**19, "limit", 9_999_999_999),
        (b"delete-delay", -(10**400), "delete_delay", -9_999_999_999),
        (b"sdp-media-remove", [b"video"], "media_remove", frozenset({"video"})),
        (b"flags", [b"trust address", b"strict_source"], "flags", {"trust-address", "strict-source"}),
        (b"flags", b"trust-address,asymmetric", "flags", {"trust-address", "asymmetric"}),
        (b"flags", [b"label=x"], "label", "x"),
        (b"extmap", {b"strip": [b"all"]}, "flags", {"strip-extmap"}),
        (b"codec", {b"strip": [b"PCMU", b"G729"]}, "codecs", Codecs(strip=("PCMU", "G729"))),
        (b"codec", {b"except": b"PCMU,G729"}, "codecs", Codecs(excepted=("PCMU", "G729"))),
        (b"flags", [b"codec-strip-opus/48000/2"], "codecs", Codecs(strip=("opus/48000/2",))),
        (b"flags", [b"codec-strip=opus/48000/2"], "codecs", Codecs(strip=("opus/48000/2",))),
        (b"codec-except", [b"PCMU", b"G722"], "codecs", Codecs(excepted=("PCMU", "G722"))),
        (b"rtpp-flags", b"transcode=PCMA", "needs", (("codec-transcode-PCMA", "transcoding"),)),
        (b"transport protocol", b"nonsense", "unknown", ("transport-protocol=nonsense",)),
        (b"codec-nonsense", b"x", "unknown", ("codec-nonsense",)),
        (b"flags", [b"codec_mask_G729", b"codec offer PCMA"], "codecs", Codecs(mask=("G729",), offer=("PCMA",))),
        (b"flags", [b"sdp-attr-add-audio-foo:a..b--1"], "attributes", {"audio": Edits(add=("foo:a b=1",))}),
        (b"flags", [b"sdp-attr-substitute-global-a>b"], "attributes", {"global": Edits(substitute=(("a", "b"),))}),
        (
            b"sdp-attr",
            {b"audio": {b"remove": [b"x"], b"substitute": [[b"a", b"b"], [b"c"], b"d"]}},
            "attributes",
            {"audio": Edits(remove=("x",), substitute=(("a", "b"),))},
        ),
    ],
)
def test_each_spelling_means_the_same(key: Any, value: Any, field: str, meant: Any) -> None:
    found = Command.of({key: value})
    assert getattr(found, field) == meant


@pytest.mark.parametrize(
    ("raw", "field", "meant"),
    [
        (b"trust-address replace-origin", "flags", {"trust-address"}),
        (b"trust-address replace-origin", "replace", {"origin"}),
        (b"replace=[origin session-connection]", "replace", {"origin", "session-connection"}),
        (b"direction=[int ext]", "direction", ("int", "ext")),
        (b"codec=[strip=[PCMU G729] offer=[PCMA]]", "codecs", Codecs(strip=("PCMU", "G729"), offer=("PCMA",))),
        (b"received-from=192.0.2.1", "received_from", "192.0.2.1"),
        (b"RTP/AVP ICE=remove", "transport", "RTP/AVP"),
        (b"ICE=remove RTP AVP", "transport", "RTP/AVP"),
        (b"SRTP", "transport", "RTP/SAVP"),
        (b"AVPF SRTP", "transport", "RTP/SAVPF"),
        (b"SRTP AVPF RTP", "transport", "RTP/AVPF"),
        (b"DTLS AVPF", "transport", "UDP/TLS/RTP/SAVPF"),
        (b"DTLS SRTP", "transport", "UDP/TLS/RTP/SAVP"),
        (b"DTLS=passive", "transport", ""),
        (b"from-tag=x", "from_tag", "x"),
        (b"from-tag=x", "flags", {"directional"}),
        (b"label=a\xffb", "label", "a\xffb"),
        (b"flags=[trust-address asymmetric]", "flags", {"trust-address", "asymmetric"}),
        (b"flags=[trust-address label=x]", "flags", {"trust-address"}),
        (b"flags=[trust-address label=x]", "label", "x"),
        (b"TOS=184 via-branch=z", "tos", 184),
        (b"sdp-attr=[audio=[add=[a:b]]]", "attributes", {"audio": Edits(add=("a:b",))}),
        (
            b"sdp-attr=[audio=[substitute=[[a b] [c d]] add=[e]]] [f g] label=x",
            "attributes",
            {"audio": Edits(add=("e",), substitute=(("a", "b"), ("c", "d")))},
        ),
        (b"direction=[int", "direction", ("int",)),
        (b"label=", "label", ""),
        (b"]] [", "flags", set()),
    ],
)
def test_raw_flags_of_newer_modules(raw: bytes, field: str, meant: Any) -> None:
    assert getattr(command(**{"rtpp-flags": raw}), field) == meant
    assert getattr(command(rtpp_flags=raw), field) == meant


@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        ({"record call": b"yes"}, (("record call=yes", "recording"),)),
        ({"record-call": b"on"}, (("record-call=on", "recording"),)),
        ({"record-call": b"no"}, ()),
        ({"record-call": b"off"}, ()),
        ({"flags": [b"record-call"]}, (("record-call", "recording"),)),
        ({"flags": [b"record-call=yes"]}, (("record-call=yes", "recording"),)),
        ({"flags": [b"SIPREC"]}, (("SIPREC", "recording"),)),
        ({"codec": {b"transcode": [b"PCMA"]}}, (("codec-transcode-PCMA", "transcoding"),)),
        ({"codec": {b"consume": [b"PCMA"]}}, (("codec-consume-PCMA", "transcoding"),)),
        ({"codec": {b"ignore": [b"PCMA"]}}, ()),
        ({"flags": [b"transcode-PCMA"]}, (("codec-transcode-PCMA", "transcoding"),)),
        ({"flags": [b"codec-set-opus/48000/2"]}, (("codec-set-opus/48000/2", "transcoding"),)),
        ({"flags": [b"always transcode"]}, (("always transcode", "transcoding"),)),
        ({"generate RTCP": b"on"}, (("generate RTCP=on", "transcoding"),)),
        ({"generate-RTCP": b"off"}, ()),
        ({"flags": [b"generate-RTCP-off"]}, ()),
        ({"flags": [b"recrypt"]}, (("recrypt", "SRTP termination"),)),
        ({"moh": {b"file": b"/x.wav"}}, (("moh", "playing media"),)),
        ({"DTMF-security": b"silence"}, (("DTMF-security=silence", "transcoding"),)),
        (
            {"DTMF-delay": 200, "trigger": b"1#"},
            (("DTMF-delay=200", "detecting DTMF"), ("trigger=1#", "detecting DTMF")),
        ),
        ({"DTMF-security": b"off", "DTMF delay": 0, "frequency": 400, "volume": -8}, ()),
    ],
)
def test_what_no_relay_of_ours_does(keys: dict[str, Any], needs: Any) -> None:
    assert command(**keys).needs == needs


def test_what_nobody_knows_is_collected_as_written_and_bounded() -> None:
    found = command(**{"Meta Dat": b"x", "flags": [b"Foo Bar", b"Foo Bar", b"trust-address"], "address-family": b"IP9"})
    assert found.unknown == ("Meta Dat", "Foo Bar", "address family=IP9")
    many = command(flags=[b"%d" % number + b"x" * 1000 for number in range(1000)])
    assert len(many.unknown) == 16 and max(map(len, many.unknown)) == 64


@pytest.mark.parametrize(
    ("key", "value", "unknown"),
    [
        ("replace", [b"origin", b"Foo"], ("replace=Foo",)),
        ("flags", [b"replace-foo", b"ICE-foo"], ("replace=foo", "ice=foo")),
        ("rtcp-mux", b"offer,bar", ("rtcp-mux=bar",)),
        ("rtcp_mux", {b"offer": 1}, ("rtcp_mux",)),
        ("ICE", b"none", ("ICE=none",)),
        ("ICE", b"", ()),
        ("supports", [b"load limit", b"more"], ("supports=more",)),
        ("endpoint-learning", b"never", ("endpoint-learning=never",)),
        ("drop-traffic", b"Start", ()),
        ("ICE-lite", b"forward", ()),
        ("direction", [b"anything"], ()),
        ("SDES", [b"no-AES_CM_128_HMAC_SHA1_32"], ()),
        ("codec", [b"strip"], ("codec",)),
        ("sdp-attr", b"x", ("sdp-attr",)),
    ],
)
def test_values_that_nobody_knows_are_collected_too(key: str, value: Any, unknown: tuple[str, ...]) -> None:
    assert command(**{key: value}).unknown == unknown


def test_brackets_within_brackets_end_somewhere() -> None:
    command(**{"rtpp-flags": b"a=[" * 10_000})
    nested: Any = b"x"
    for _ in range(50):
        nested = {b"rtpp-flags": b"rtpp-flags=x", b"codec": nested}
    command(**{"codec": nested, "rtpp-flags": b"rtpp-flags=" * 1000})


def test_label_of_the_party_comes_before_set_label() -> None:
    assert command(**{"set-label": b"s", "label": b"x"}).label == "x"


_leaves = st.one_of(st.binary(max_size=12), st.integers(), st.text(max_size=12), st.none(), st.booleans())
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.binary(max_size=8), inner, max_size=4)),
    max_leaves=10,
)
_keys = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12),
    st.sampled_from(
        [b"flags", b"codec", b"sdp-attr", b"replace", b"direction", b"received from", b"ICE", b"rtpp-flags", b"TOS"]
        + [b"interface", b"extmap", b"address family", b"rtcp-mux", b"delete delay", b"sdp", b"command"]
    ),
)


@given(st.dictionaries(_keys, _values, max_size=8))
def test_no_dictionary_raises_anything(dictionary: dict[Any, Any]) -> None:
    found = Command.of(dictionary)
    assert len(found.unknown) <= 16
    assert len(found.direction) <= 2


@given(st.binary(max_size=80))
def test_no_raw_flags_raise_anything(raw: bytes) -> None:
    command(**{"rtpp-flags": raw})


@pytest.mark.parametrize(
    ("message", "field", "meant"),
    [
        (b"d5:flagsl3:alle5:flagsl4:fastee", "flags", frozenset(("fast",))),
        (b"d7:call-id1:a7:call-id1:be", "call_id", "b"),
        (b"d7:call-id1:a7:call-idi7ee", "call_id", "7"),
        (b"d7:call-idi7e7:call-id1:ae", "call_id", "a"),
        (b"d7:call-id1:a7:Call-ID1:b7:call-idi7ee", "call_id", "b"),
        (b"d3:sdp3:v=03:sdpi7ee", "sdp", None),
        (b"d13:received-from3:::113:received-fromlee", "received_from", ""),
        (b"d13:received-from3:::110:rtpp-flags17:received-from=::2e", "received_from", "::2"),
        (b"d10:rtpp-flags17:received-from=::213:received-from3:::1e", "received_from", "::1"),
        (b"d13:received-from3:::113:received-from3:::313:received_from3:::2e", "received_from", "::2"),
        (b"d7:command4:ping7:Command5:offere", "name", "ping"),
        (b"d7:Command5:offere", "name", ""),
    ],
)
def test_of_equal_keys_the_last_one_counts(message: bytes, field: str, meant: object) -> None:
    assert getattr(Command.read(entries(message, 0)), field) == meant


def test_what_belongs_to_recordings_alone_needs_nothing() -> None:
    told = Command.of({"metadata": "x", "recording-file": "y", "passthrough": "on", "record call": "no"})
    assert (told.unknown, told.needs) == ((), ())


def test_of_opposites_the_last_one_counts() -> None:
    """As with rtpengine."""
    for one, other in (("trust-address", "SIP-source-address"), ("port-latching", "no-port-latching")):
        assert command(flags=[one.encode(), other.encode()]).flags == {other.lower()}
        assert command(flags=[other.encode(), one.encode()]).flags == {one.lower()}

"""The page that mediaproxy explain prints: it says what the system does, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import EndRequest, KnownBy
from mediaproxy.explain import Explanation, explain
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, parse
from mediaproxy.traversal import Facts
from tests.sip_corpus import MESSAGES
from tests.test_traversal import PHONE, POLICY, PROXY, PUBLIC_SDP, SDP, arrival, message


def of(asked: Message, source: str = PHONE, policy: Policy = POLICY, facts: Facts | None = None) -> Explanation:
    return explain(asked, arrival(source), policy, facts)


INVITE = message("INVITE", "To: <sip:bob@other.net>", "Contact: <sip:alice@192.168.1.10:5060>", body=SDP)


def test_a_whole_page() -> None:
    explanation = of(INVITE)
    assert explanation.client_nat_test == 1
    assert [explanation.tests[test].fired for test in "124"] == [True, True, True]
    assert explanation.message.header("contact") == "<sip:alice@198.51.100.7:34567>"
    assert explanation.phone is not None and explanation.phone.known_by is KnownBy.SOURCE
    assert explanation.warnings == ()
    page, question = str(explanation).split("Question to the media arm\n")
    assert page == (
        """\
Message
  INVITE sip:bob@example.com SIP/2.0
  from 198.51.100.7:34567 over udp to 203.0.113.1:5060
  Call-ID c1, CSeq 1 INVITE
  user agent: not named

NAT test
  1: YES Contact has the private address 192.168.1.10
  2: YES the packet came from 198.51.100.7, the top Via says 192.168.1.10
  4: YES the top Via has the private address 192.168.1.10
  sdp-private: YES the SDP has the private address 192.168.1.10
  port-differs: YES the packet came from port 34567, the top Via says 5060
  cgn: no  no carrier-grade NAT address in Contact, Via or SDP
  contact-differs: YES the packet came from 198.51.100.7 port 34567, a Contact says 192.168.1.10 port 5060
  ula: no  no unique local address in Contact, Via or SDP
  client_nat_test(7): 1, behind a NAT
  nat_uac_test: 1 with any of 1, 2, 4, 8, 16, 128, 256

Contact
  fix_contact: 1
  sip:alice@192.168.1.10:5060 becomes sip:alice@198.51.100.7:34567

Via
  sent by 192.168.1.10:5060 over udp
  as it came: received not there, rport not asked for
  force_rport: received=198.51.100.7;rport=34567

The phone's address
  198.51.100.7:34567: the source of the packet

Stream 1: audio over RTP/AVP
  wants media at 192.168.1.10:5004 (private)
  wants RTCP at 192.168.1.10:5005
  direction sendrecv
  payload types 0 PCMU/8000
  rank 1: 192.168.1.10:5004
  rank 2: nobody, 192.168.1.10 is not public
  rank 3: 198.51.100.7, any port
  media for it goes to 198.51.100.7:5004 (until it has sent)

"""
    )
    assert question.startswith('  {"type":"media","call_id":"c1"')


@pytest.mark.parametrize(
    ("asked", "source", "says"),
    [
        pytest.param(message("REGISTER", "Contact: *"), PHONE, "fix_contact: -1, nothing to fix in *", id="star"),
        pytest.param(message("REGISTER"), PHONE, "fix_contact: -1, no Contact", id="no-contact"),
        pytest.param(
            message("REGISTER", "Contact: <tel:+1>, <sip:a@198.51.100.7:34567>"),
            PHONE,
            "tel:+1 stays: no SIP URI",
            id="tel",
        ),
        pytest.param(
            message("REGISTER", "Contact: <sip:a@198.51.100.7:34567>"), PHONE, "198.51.100.7:34567 stays", id="right"
        ),
        pytest.param(message("INVITE", "Via: x"), PHONE, "not readable", id="broken-via"),
        pytest.param(message("SIP/2.0 200 OK"), PHONE, "tests 2 and 4 say nothing", id="response"),
        pytest.param(message("SIP/2.0 200 OK"), PHONE, "client_nat_test(7): 1, behind a NAT", id="our-own-via"),
        pytest.param(message("INVITE", body=SDP + "a=crypto:1 x y\r\n"), PHONE, "has SRTP keys in the SDP", id="sdes"),
        pytest.param(message("SIP/2.0 200 OK", body=SDP), PROXY, "unknown: only a trusted proxy's", id="unknown-phone"),
        pytest.param(
            message("INVITE", "User-Agent: ipDialog SipTone", body=PUBLIC_SDP),
            PHONE,
            "always, it is RTP-asymmetric",
            id="asym",
        ),
        pytest.param(
            message("INVITE", "User-Agent: ipDialog SipTone"), PHONE, "it is SIP-asymmetric, by", id="sip-asym"
        ),
        pytest.param(message("INVITE", body=PUBLIC_SDP), PHONE, "rank 2: 198.51.100.7, any port", id="rank-2"),
        pytest.param(message("SIP/2.0 200 OK", body=SDP), PROXY, "rank 3: nobody", id="rank-3-nobody"),
        pytest.param(
            message("INVITE", body=SDP.replace("c=IN IP4 192.168.1.10", "c=IN IP4 0.0.0.0")),
            PHONE,
            "rank 1: nobody",
            id="rank-1-nobody",
        ),
        pytest.param(message("INVITE", body=SDP + "a=sendonly\r\n"), PHONE, "direction sendonly, on hold", id="hold"),
        pytest.param(message("INVITE", body=SDP + "a=rtcp-mux\r\n"), PHONE, "RTCP on the RTP port", id="mux"),
        pytest.param(message("INVITE", body=SDP + "a=ice-ufrag:x\r\n"), PHONE, "its lines stay", id="ice"),
        pytest.param(message("INVITE", body=SDP + "a=fingerprint:x\r\n"), PHONE, "DTLS passes", id="dtls"),
        pytest.param(message("INVITE", body=SDP + "m=image 6 udptl t38\r\n"), PHONE, "has no RTCP port", id="udptl"),
        pytest.param(
            message("INVITE", body=SDP + "m=video 0 RTP/AVP 31\r\n"), PHONE, "gets no relay ports", id="rejected"
        ),
        pytest.param(
            message("INVITE", body=SDP + "m=\r\n"), PHONE, "cannot be relayed (400): SDP: line 7", id="broken-sdp"
        ),
        pytest.param(message("BYE"), PHONE, '"cause":"bye"', id="bye"),
        pytest.param(message("OPTIONS"), PHONE, "Question to the media arm\n  none", id="no-question"),
        pytest.param(message("INVITE", "User-Agent: \x1b[31mevil\x07"), PHONE, "\\x1b[31mevil\\x07", id="escapes"),
        pytest.param(message("INVITE", "User-Agent: caf\xc3\xa9"), PHONE, "caf\xe9", id="utf-8"),
    ],
)
def test_the_page_says(asked: Message, source: str, says: str) -> None:
    assert says in str(of(asked, source))


def test_kept_ice_and_facts_are_shown() -> None:
    asked = message("INVITE", body=SDP + "a=ice-ufrag:x\r\n")
    assert "its lines stay" in str(of(asked, policy=Policy(ice=IcePolicy.KEEP)))
    failed = of(message("SIP/2.0 486 Busy"), facts=Facts(in_dialog=False))
    assert isinstance(failed.plan.request, EndRequest)


@pytest.mark.parametrize(
    ("asked", "warning"),
    [
        pytest.param(
            message("INVITE", "Content-Length: 9", body=SDP), "the body plainly goes on", id="longer-than-declared"
        ),
        pytest.param(
            message("INVITE", f"Content-Length: {len(SDP)}", body=f"{SDP}BYE sip:b@c SIP/2.0\r\n"),
            "bytes behind the body",
            id="another-message-behind",
        ),
        pytest.param(message("INVITE", "Content-Length: 9999", body=SDP), "the message was cut off", id="cut-off"),
        pytest.param(message("INVITE", "Content-Length: x", body=SDP), "Content-Length is unreadable", id="bad-length"),
        pytest.param(
            message("INVITE", "Content-Encoding: gzip", "Content-Type: application/sdp", body="\x1f\x8b"),
            "no SDP is found in the body: application/sdp, encoded as gzip",
            id="compressed",
        ),
        pytest.param(
            message("INVITE", "Contact: <sip:a@127.0.0.1>"), "reaches nobody but the phone itself", id="loopback"
        ),
        pytest.param(
            message("INVITE", body=SDP + "m=x 4 TCP/MSRP *\r\n"), "stream 2: TCP/MSRP is not carried", id="msrp"
        ),
        pytest.param(message("INVITE", body="m=audio 4 RTP/AVP 0\r\n"), "stream 1: there is no c= line", id="no-c"),
        pytest.param(
            message("INVITE", body="c=IN IP4 host.example\r\nm=audio 4 RTP/AVP 0\r\n"),
            "c= has host.example, which is no usable address",
            id="host-name",
        ),
        pytest.param(
            message("INVITE", body="c=IN IP6 10.0.0.1\r\nm=audio 4 RTP/AVP 0\r\n"), "c= says IP6", id="family"
        ),
        pytest.param(
            message("INVITE", body=SDP + "c=IN IP4 10.0.0.1\r\nc=IN IP4 10.0.0.2\r\n"),
            "several c= lines",
            id="several-c",
        ),
        pytest.param(
            message("INVITE", body=SDP.replace("192.168.1.10", "127.0.0.1")),
            "nobody can send to 127.0.0.1",
            id="loopback-sdp",
        ),
        pytest.param(message("INVITE", body=SDP.replace("5004", "5003")), "RTP port 5003 is odd", id="odd-port"),
        pytest.param(message("INVITE", body=SDP.replace("AVP 0", "AVP 99")), "without rtpmap: 99", id="nameless"),
        pytest.param(
            message("INVITE", "Contact: <sip:a@198.51.100.7>", body=SDP),
            "Contact is public but the SDP is private",
            id="alg-sip",
        ),
        pytest.param(
            message("INVITE", "Contact: <sip:a@10.0.0.1>", body=PUBLIC_SDP),
            "Contact is private but the SDP",
            id="alg-media",
        ),
        pytest.param(message("INVITE", body=SDP + "m=\r\n"), "SDP: line 7", id="broken-sdp"),
    ],
)
def test_what_is_odd_is_pointed_out(asked: Message, warning: str) -> None:
    explanation = of(asked)
    assert any(warning in line for line in explanation.warnings)
    assert warning in str(explanation)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_we_have_can_be_explained(name: str) -> None:
    page = str(of(parse(MESSAGES[name])))
    assert page.startswith("Message\n") and page.replace("\n", "").isprintable()


def test_a_text_message_is_nothing_odd() -> None:
    assert of(message("MESSAGE", "Content-Type: text/plain", body="hello", sdp=False)).warnings == ()


_lines = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20)


@given(
    st.lists(st.tuples(st.sampled_from(["Via", "From", "To", "Contact", "CSeq", "Content-Length"]), _lines), max_size=4)
)
def test_any_message_can_be_explained(headers: list[tuple[str, str]]) -> None:
    try:
        asked = message("INVITE", *(f"{name}: {value}" for name, value in headers), body=SDP)
    except SipError:
        return
    assert str(of(asked)).replace("\n", "").isprintable()

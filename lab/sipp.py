"""SIPp as a pair of phones that both send a tone: registration, call, RTP, BYE, each as a scenario of its own.

SIPp records nothing, so what its "phones" hear is judged from the wire (lab/capture.py). Both sides must send: a SIPp
that only echoes waits behind its NAT for a first packet that no one can send it.
"""

import subprocess
from pathlib import Path

from lab import tones
from lab.netns import LabError, Namespace

_HEADERS = """\
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
      Max-Forwards: 70
      From: <sip:{user}@sip.test>;tag=[call_number]-{user}
"""

_SDP = """\
      v=0
      o=- 1 1 IN IP4 [local_ip]
      s=-
      c=IN IP4 [media_ip]
      t=0 0
      m=audio [rtpstream_audio_port] RTP/AVP 0
      a=rtpmap:0 PCMU/8000
"""

_REGISTER = (
    """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="register">
  <send retrans="500"><![CDATA[
      REGISTER sip:sip.test SIP/2.0
"""
    + _HEADERS
    + """\
      To: <sip:{user}@sip.test>
      Call-ID: [call_id]
      CSeq: 1 REGISTER
      Contact: <sip:{user}@[local_ip]:[local_port]>
      Expires: 600
      Content-Length: 0

  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="200"/>
</scenario>
"""
)

_CALL = (
    """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="caller that sends">
  <send retrans="500"><![CDATA[
      INVITE sip:[service]@sip.test SIP/2.0
"""
    + _HEADERS
    + """\
      To: <sip:[service]@sip.test>
      Call-ID: [call_id]
      CSeq: 1 INVITE
      Contact: <sip:{user}@[local_ip]:[local_port]>
      Content-Type: application/sdp
      Content-Length: [len]

"""
    + _SDP
    + """\
  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
      ACK [next_url] SIP/2.0
"""
    + _HEADERS
    + """\
      To: <sip:[service]@sip.test>[peer_tag_param]
      [routes]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Content-Length: 0

  ]]></send>
  <nop><action><exec rtp_stream="{tone},-1,0"/></action></nop>
  <pause milliseconds="{milliseconds}"/>
  <send retrans="500"><![CDATA[
      BYE [next_url] SIP/2.0
"""
    + _HEADERS
    + """\
      To: <sip:[service]@sip.test>[peer_tag_param]
      [routes]
      Call-ID: [call_id]
      CSeq: 2 BYE
      Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"""
)

_REPLY = """\
      [last_Via:]
      [last_From:]
      [last_To:];tag=[call_number]-{user}
      [last_Call-ID:]
      [last_CSeq:]
      [last_Record-Route:]
      Contact: <sip:{user}@[local_ip]:[local_port]>
"""

_ANSWER = (
    """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="callee that sends">
  <recv request="INVITE"/>
  <send><![CDATA[
      SIP/2.0 180 Ringing
"""
    + _REPLY
    + """\
      Content-Length: 0

  ]]></send>
  <send retrans="500"><![CDATA[
      SIP/2.0 200 OK
"""
    + _REPLY
    + """\
      Content-Type: application/sdp
      Content-Length: [len]

"""
    + _SDP
    + """\
  ]]></send>
  <recv request="ACK"><action><exec rtp_stream="{tone},-1,0"/></action></recv>
  <recv request="BYE"/>
  <send><![CDATA[
      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0

  ]]></send>
</scenario>
"""
)


class Sipp:
    """One SIPp "phone" in a namespace; each step is a run of SIPp on the same port."""

    def __init__(self, namespace: Namespace, address: str, user: str, tone: int, folder: Path) -> None:
        self.user = user
        self._namespace = namespace
        self._address = address
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._tone = folder / "tone.ulaw"
        self._tone.write_bytes(tones.encode_ulaw(tones.samples(tone, 10)))

    def register(self, proxy: str) -> None:
        """Register; LabError unless it is accepted within 10 s."""
        self.finish(self._start("register", _REGISTER, proxy, 0))

    def answer(self, proxy: str) -> subprocess.Popen[bytes]:
        """Wait for one call and answer it; ``finish`` waits for its end."""
        return self._start("answer", _ANSWER, proxy, 0)

    def call(self, proxy: str, service: str, seconds: float) -> subprocess.Popen[bytes]:
        """Call the user ``service`` for ``seconds``; ``finish`` waits for its end."""
        return self._start("call", _CALL, proxy, seconds, "-s", service)

    def _start(self, name: str, scenario: str, proxy: str, seconds: float, *more: str) -> subprocess.Popen[bytes]:
        text = scenario.replace("{user}", self.user).replace("{tone}", str(self._tone))
        file = self._folder / f"{name}.xml"
        file.write_text(text.replace("{milliseconds}", str(round(seconds * 1000))))
        argv = ["sipp", proxy, "-sf", str(file), "-i", self._address, "-p", "5060", "-m", "1", "-nostdin"]
        argv += ["-mp", "40000", "-timeout", f"{seconds + 20:g}s", "-timeout_error"]
        argv += ["-trace_err", "-error_file", str(self._folder / f"{name}.err"), *more]
        return self._namespace.start(argv, self._folder / f"{name}.log", self._folder)

    def finish(self, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
        """Wait until a step has ended well. LabError if it fails or takes too long."""
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise LabError(f"SIPp of {self.user} did not end within {seconds:g} s") from error
        if status != 0:
            errors = "".join(file.read_text(errors="replace")[-1000:] for file in self._folder.glob("*.err"))
            raise LabError(f"SIPp of {self.user} failed with {status}: {errors}")

"""A PJSIP phone as a program of its own: commands come in as lines, events go out as JSON lines.

``python -m lab.pjsip_phone SETTINGS`` with SETTINGS as JSON (see lab/pjsip.py). Commands: ``dial URI``, ``hold``,
``resume``, ``hangup``, ``quit``. Events: registered, registration-failed, established, closed. It answers every call at
once, sends its tone and records each call to a file of its own. It must never touch a sound device.
"""

import json
import os
import select
import sys
import time
from typing import Any

import pjsua2 as pj

_CLOSING = 0.1
"Seconds that PJSIP's sound thread may take to write and close the file of a recorder that was let go."


def tell(event: str, **facts: object) -> None:
    """Send an event to whoever started us."""
    sys.stdout.write(json.dumps({"event": event} | facts) + "\n")
    sys.stdout.flush()


class TalkingCall(pj.Call):  # type: ignore[misc]  # pjsua2 has no type hints
    """A call that sends the tone and records the other side."""

    def __init__(self, phone: "PjsipPhone", call_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(phone.account, call_id)
        self._phone = phone
        self._player: Any = None
        self._recorder: Any = None

    def onCallState(self, prm: object) -> None:  # PJSIP's name
        """PJSIP: the call went on."""
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            tell("established")
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self._player = self._recorder = None
            self._phone.ended.append((time.monotonic() + _CLOSING, self, info.lastStatusCode, info.lastReason))

    def onCallMediaState(self, prm: object) -> None:  # PJSIP's name
        """PJSIP: the media is there, or there anew; connect tone and recorder."""
        info = self.getInfo()  # its media live as long as it does
        for index, media in enumerate(info.media):
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                if self._recorder is None:
                    self._player = pj.AudioMediaPlayer()
                    self._player.createPlayer(self._phone.settings["tone"])
                    self._recorder = pj.AudioMediaRecorder()
                    self._recorder.createRecorder(self._phone.settings["recording"])
                audio = self.getAudioMedia(index)
                self._player.startTransmit(audio)
                audio.startTransmit(self._recorder)


class RegisteringAccount(pj.Account):  # type: ignore[misc]  # pjsua2 has no type hints
    """The account: registers and answers calls."""

    def __init__(self, phone: "PjsipPhone") -> None:
        super().__init__()
        self._phone = phone

    def onRegState(self, prm: Any) -> None:  # PJSIP's name
        """PJSIP: the server answered a REGISTER."""
        tell("registered" if prm.code // 100 == 2 else "registration-failed", status=prm.code, reason=prm.reason)

    def onIncomingCall(self, prm: Any) -> None:  # PJSIP's name
        """PJSIP: somebody calls; answer."""
        self._phone.call = TalkingCall(self._phone, prm.callId)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        self._phone.call.answer(answer)


class PjsipPhone:
    """The endpoint with its one account and at most one call."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.call: TalkingCall | None = None
        self.ended: list[tuple[float, TalkingCall, int, str]] = []
        "Calls that are over: when to tell it, the call, its last status and reason."
        self._endpoint = pj.Endpoint()
        self._endpoint.libCreate()
        self._endpoint.libInit(_endpoint_config(settings))
        transport = pj.TransportConfig()
        transport.port = settings["port"]
        transport.boundAddress = settings["bind"]
        transport.publicAddress = settings["address"]
        self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self._endpoint.audDevManager().setNullDev()
        self._endpoint.libStart()
        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId.startswith("PCMU/") else 0)
        self.account = RegisteringAccount(self)
        self.account.create(_account_config(settings))

    def serve(self) -> None:
        """Handle PJSIP and commands until ``quit`` or the end of input."""
        while True:
            self._endpoint.libHandleEvents(5)
            while self.ended and self.ended[0][0] <= time.monotonic():
                _, _, status, reason = self.ended.pop(0)
                tell("closed", status=status, reason=reason)
            if select.select([sys.stdin], [], [], 0)[0]:
                word, _, rest = sys.stdin.readline().strip().partition(" ")
                if word == "dial":
                    self.call = TalkingCall(self)
                    self.call.makeCall(rest, pj.CallOpParam(True))
                elif word == "hangup" and self.call is not None:
                    self.call.hangup(pj.CallOpParam())
                elif word == "hold" and self.call is not None:
                    self.call.setHold(pj.CallOpParam())
                elif word == "resume" and self.call is not None:
                    again = pj.CallOpParam(True)
                    again.opt.flag |= pj.PJSUA_CALL_UNHOLD
                    self.call.reinvite(again)
                elif word in ("quit", ""):
                    return


def _endpoint_config(settings: dict[str, Any]) -> Any:
    config = pj.EpConfig()
    if settings["stun"]:
        config.uaConfig.stunServer.append(settings["stun"])
        config.uaConfig.stunIgnoreFailure = False
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.logConfig.level = 4
    config.logConfig.consoleLevel = 0
    config.logConfig.filename = "pjsip.log"
    config.medConfig.clockRate = 8000
    config.medConfig.sndClockRate = 8000
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    config.medConfig.jbInit = 40
    return config


def _account_config(settings: dict[str, Any]) -> Any:
    config = pj.AccountConfig()
    config.idUri = settings["uri"]
    config.regConfig.registrarUri = "sip:" + settings["domain"]
    config.regConfig.timeoutSec = settings["expires"]
    config.sipConfig.proxies.append(f"sip:{settings['proxy']};lr")
    credential = pj.AuthCredInfo("digest", "*", settings["user"], 0, settings["password"])
    config.sipConfig.authCreds.append(credential)
    # PJSIP would find out about its NAT by itself; unless that is wanted, the server must do all the work.
    config.natConfig.viaRewriteUse = int(settings["learns"])
    config.natConfig.contactRewriteUse = int(settings["learns"])
    config.natConfig.sdpNatRewriteUse = int(settings["learns"])
    config.natConfig.iceEnabled = settings["ice"]
    config.natConfig.sipOutboundUse = 0
    config.natConfig.udpKaIntervalSec = 0
    config.mediaConfig.transportConfig.port = settings["rtp_port"]
    config.mediaConfig.transportConfig.portRange = 90
    config.mediaConfig.transportConfig.boundAddress = settings["bind"]
    config.mediaConfig.transportConfig.publicAddress = settings["address"]
    return config


def main() -> None:
    """Run the phone, then leave without PJSIP's slow farewell."""
    phone = PjsipPhone(json.loads(sys.argv[1]))
    phone.serve()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

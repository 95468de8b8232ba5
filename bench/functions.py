"""What each of the module's four functions costs per INVITE: in this process, and inside Kamailio's Python.

The INVITEs are those of ``bench.messages``. In the process ``module.Run`` is called with an answer that is there at
once. Inside, the routing script takes the time around each call: ours for one INVITE, for the next one the functions
of Kamailio's own modules (nathelper, rtpengine) that do the same, called from the same script. There use_media_proxy
and end_media_session wait for ``mediaproxy run``, as rtpengine_offer and rtpengine_delete do for rtpengine-daemon: one
INVITE at a time, Kamailio and both relays on one core. Reading the message counts as part of the first function.
"""

import json
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from bench.calls import rtpengine
from bench.kamailio import example
from bench.kemi import relay
from bench.messages import Case, cases
from bench.processes import loopback, two_cores, wait_answer
from bench.report import alone, line
from lab.netns import LabError
from mediaproxy.control import MediaPort, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.module import OK, RouteType, Run, drive
from mediaproxy.policy import Policy
from mediaproxy.sip.message import parse

FUNCTIONS = ("client_nat_test", "fix_contact", "use_media_proxy", "end_media_session")
RIVALS = ("nat_uac_test", "fix_nated_contact", "rtpengine_offer", "rtpengine_delete")
"Those of Kamailio's own modules, in the same order."
COPIES = 500
"Of each INVITE, of which there are three; half of them for the rivals."
ROUNDS = 3

_WARM_UP = 200
_PORT = MediaPort(rtp=Endpoint("203.0.113.10", 30_000), rtcp=Endpoint("203.0.113.10", 30_001))
SCRIPT = """\
import json
import time
import KSR
import mediaproxy.kamailio

OURS, THEIRS = {ours!r}, {theirs!r}

class Router(mediaproxy.kamailio.Module):
    def child_init(self, rank):
        self.count, self.took = 0, {{name: [] for name in (*OURS, *THEIRS)}}
        return 0

    def ours(self, msg):
        clock = time.perf_counter
        t0 = clock()
        tested = self.client_nat_test(msg, "7")
        t1 = clock()
        fixed = self.fix_contact(msg)
        t2 = clock()
        relayed = self.use_media_proxy(msg)
        t3 = clock()
        ended = self.end_media_session(msg)
        t4 = clock()
        self.note(OURS, (tested, fixed, relayed, ended), (t1 - t0, t2 - t1, t3 - t2, t4 - t3))

    def theirs(self, msg):
        clock, nathelper, engine = time.perf_counter, KSR.nathelper, KSR.rtpengine
        t0 = clock()
        tested = nathelper.nat_uac_test(7)
        t1 = clock()
        fixed = nathelper.fix_nated_contact()
        t2 = clock()
        relayed = engine.rtpengine_offer("replace-session-connection")
        t3 = clock()
        ended = engine.rtpengine_delete0()
        t4 = clock()
        self.note(THEIRS, (tested, fixed, relayed, ended), (t1 - t0, t2 - t1, t3 - t2, t4 - t3))

    def note(self, names, results, times):
        if min(results) < 1:
            KSR.err("bench: %s returned %s\\n" % (names, [int(one) for one in results]))
            return
        for name, took in zip(names, times):
            self.took[name].append(took)

    def ksr_request_route(self, msg):
        KSR.force_rport()
        if KSR.is_INVITE():
            self.count += 1
            (self.ours if self.count % 2 else self.theirs)(msg)
            return KSR.sl.sl_send_reply(486, "Busy Here")
        with open({result!r}, "w") as file:
            json.dump(self.took, file)
        return KSR.sl.sl_send_reply(200, "OK")

def mod_init():
    return Router(mediaproxy_socket={path!r}, timeout=2.0)
"""
_OPTIONS = (
    "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch=z9hG4bKbench;rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:bench@{1}>;tag=b\r\nTo: <sip:{0}>\r\nCall-ID: bench\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)


def _answer(question: Question) -> MediaReply:
    """What a relay would say."""
    return MediaReply(ports=(_PORT,) * len(question.streams) if isinstance(question, MediaRequest) else ())


def in_process(todo: list[Case]) -> dict[str, float]:
    """Seconds per INVITE of each function of ours. LabError if one fails."""
    took: dict[str, float] = defaultdict(float)
    policy, clock = Policy(), time.perf_counter
    for case in todo:
        t0 = clock()
        run = Run(parse(case.data), case.arrival, policy, RouteType.REQUEST)
        tested = run.client_nat_test("7")
        t1 = clock()
        fixed = run.fix_contact()
        t2 = clock()
        relayed = drive(run.use_media_proxy(), _answer)
        t3 = clock()
        ended = drive(run.end_media_session(), _answer)
        t4 = clock()
        if not tested == fixed == relayed == ended == OK:
            raise LabError(f"a function failed: {tested}, {fixed}, {relayed}, {ended}")
        for name, seconds in zip(FUNCTIONS, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True):
            took[name] += seconds
    return {name: seconds / len(todo) for name, seconds in took.items()}


def in_kamailio(folder: Path, todo: list[Case]) -> dict[str, float]:
    """Seconds per INVITE of each function, ours and Kamailio's; the median. LabError if one fails."""
    address, result = loopback(5), folder / "result.json"
    core, _ = two_cores() or (None, None)
    (folder / "engine").mkdir()
    with relay(folder / "relay", address, core, linger=0.0) as path, rtpengine(folder / "engine", address, core):
        script = SCRIPT.format(ours=FUNCTIONS, theirs=RIVALS, result=str(result), path=str(path))
        more = 'loadmodule "nathelper.so"\nloadmodule "rtpengine.so"\n'
        more += f'modparam("rtpengine", "rtpengine_sock", "udp:{address}:2223")\n'
        with example(folder / "kamailio", script, f"{address}:5060", children=1, core=core, more=more):
            _send((address, 5060), todo)
    took: Mapping[str, list[float]] = json.loads(result.read_text())
    if any(len(times) < len(todo) // 2 for times in took.values()):
        raise LabError(f"functions failed: {(folder / 'kamailio' / 'kamailio.log').read_text()[-1000:]}")
    return {name: median(times[_WARM_UP:]) for name, times in took.items()}


def _send(server: tuple[str, int], todo: list[Case]) -> None:
    """Send all INVITEs, the next one when the one before is answered, and ask for the result."""
    options = _OPTIONS.format("{}:{}".format(*server), server[0]).encode()
    wait_answer("Kamailio", server, options)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((server[0], 0))
        sock.settimeout(5.0)
        for data in (*(case.data for case in todo), options):
            sock.sendto(data, server)
            sock.recv(65_536)


def run() -> Iterator[str]:
    """The lines."""
    todo = cases(COPIES)
    rounds = [in_process(todo) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory(prefix="mpbench-") as name:
        inside = in_kamailio(Path(name), todo)
    for function in FUNCTIONS:
        yield alone(f"{function}, in the process", 1e6 * median(one[function] for one in rounds), "us/INVITE")
    for function, rival in zip(FUNCTIONS, RIVALS, strict=True):
        cost, rival_cost = 1e6 * inside[function], 1e6 * inside[rival]
        yield line(f"{function}, in Kamailio", cost, "us/INVITE", rival, rival_cost, rival_cost / cost)

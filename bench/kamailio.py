"""Kamailio as a rival: its configuration for each benchmark, and a running one.

Debian's package, no database, everything it writes goes into a folder of ours.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.processes import pinned, running, wait_log
from lab.netns import run

_HEAD = """\
debug=1
log_stderror=yes
disable_tcp=yes
auto_aliases=no
children={children}
listen=udp:{listen}
"""

STATELESS = """\
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "dialog.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "nat_traversal.so"
loadmodule "nathelper.so"
loadmodule "textops.so"
modparam("nat_traversal", "keepalive_state_file", "{folder}/keepalive")
request_route {{
    force_rport();
    if (client_nat_test("7"))
        fix_contact();
    fix_nated_sdp("2", "{relay}");
    subst_body('/^m=([a-z]+) [0-9]+/m=\\1 30000/g');
    $du = "sip:{next_hop}";
    forward();
}}
"""
"Repairs each request and forwards it without state; stands for what ``bench.messages`` measures."


CALLS = """\
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "tmx.so"
loadmodule "maxfwd.so"
loadmodule "sanity.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "dialog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nat_traversal.so"
loadmodule "rtpengine.so"
modparam("nat_traversal", "keepalive_state_file", "{folder}/keepalive")
modparam("rtpengine", "rtpengine_sock", "udp:{rtpengine}")
request_route {{
    if (!mf_process_maxfwd_header("10"))
        exit;
    if (!sanity_check())
        exit;
    if (is_method("CANCEL")) {{
        if (t_check_trans())
            t_relay();
        exit;
    }}
    if (!is_method("ACK") && t_precheck_trans()) {{
        t_check_trans();
        exit;
    }}
    if (client_nat_test("7")) {{
        force_rport();
        fix_contact();
    }}
    if (has_totag()) {{
        if (!loose_route())
            exit;
        if (is_method("BYE"))
            rtpengine_delete();
        t_relay();
        exit;
    }}
    if (is_method("REGISTER")) {{
        save("location");
        exit;
    }}
    record_route();
    if (!lookup("location")) {{
        sl_send_reply("404", "Not Found");
        exit;
    }}
    if (is_method("INVITE")) {{
        rtpengine_offer("replace-session-connection ICE=remove");
        t_on_reply("MEDIA");
        t_on_failure("FAILED");
    }}
    t_relay();
}}
onreply_route[MEDIA] {{
    if (client_nat_test("1"))
        fix_contact();
    if (status =~ "^(18[03]|2..)$" && has_body("application/sdp"))
        rtpengine_answer("replace-session-connection ICE=remove");
}}
failure_route[FAILED] {{
    rtpengine_delete();
}}
"""
"A registrar and proxy that helps phones behind NAT, media by rtpengine: what ``bench.calls`` measures."


def version() -> str:
    """Its name and version."""
    said = re.search(r"kamailio ([0-9.]+)", run(["kamailio", "-v"]))
    return f"Kamailio {said.group(1)}" if said else "Kamailio"


@contextmanager
def kamailio(
    folder: Path, route: str, listen: str, *, children: int = 1, core: int | None = None, values: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A running Kamailio on ``listen`` (ADDRESS:PORT), until the block ends. ``values`` fill the route's braces."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "kamailio.cfg"
    config.write_text(_HEAD.format(children=children, listen=listen) + route.format(folder=folder, **values))
    argv = ["kamailio", "-f", str(config), "-DD", "-E", "-m", "256", "-M", "16"]
    argv += ["-Y", str(folder), "-w", str(folder), "-P", str(folder / "pid")]
    with running(pinned(core, argv), folder / "kamailio.log") as process:
        wait_log(process, folder / "kamailio.log", "Aliases")
        yield process

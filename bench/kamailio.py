"""Kamailio as a rival: its configuration for each benchmark, and a running one.

Debian's package, no database, everything it writes goes into a folder of ours.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.processes import pinned, running, wait_log
from lab.kamailio import EXAMPLE, VENV
from lab.netns import LabError, run

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


NATHELPER = """\
alias="sip.test"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
loadmodule "rtpengine.so"
modparam("usrloc", "nat_bflag", 6)
modparam("rr", "enable_full_lr", 1)
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("rtpengine", "rtpengine_sock", "udp:{rtpengine}")
request_route {{
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (is_method("REGISTER")) {{
        if (nat_uac_test("3")) {{
            force_rport();
            fix_nated_register();
            setbflag(6);
        }}
        if (!save("location"))
            sl_reply_error();
        exit;
    }}
    if (is_method("BYE|CANCEL"))
        rtpengine_delete();
    if (is_method("CANCEL")) {{
        if (t_check_trans())
            t_relay();
        exit;
    }}
    if (has_totag()) {{
        if (!loose_route()) {{
            if (is_method("ACK") && t_check_trans())
                t_relay();
            else if (!is_method("ACK"))
                sl_send_reply("404", "Not Here");
            exit;
        }}
        if (!is_method("ACK"))
            route(REPAIR_KNOWN);
        route(RELAY);
    }}
    if (is_method("ACK"))
        exit;
    t_check_trans();
    if (!is_present_hf("Record-Route") && nat_uac_test("3")) {{
        force_rport();
        fix_nated_contact();
        $var(nated) = 1;
    }} else
        $var(nated) = 0;
    if (is_method("INVITE|SUBSCRIBE")) {{
        record_route();
        if ($var(nated) == 1)
            add_rr_param(";nata");
        t_on_branch("MARK");
    }}
    if (uri != myself) {{
        sl_send_reply("403", "Not Our Domain");
        exit;
    }}
    if (!lookup("location")) {{
        sl_send_reply("404", "Not Found");
        exit;
    }}
    route(RELAY);
}}
route[REPAIR_KNOWN] {{
    if (is_direction("downstream")) {{
        if (check_route_param(";nata(;|$)") || nat_uac_test("1")) {{
            force_rport();
            fix_nated_contact();
        }}
        if (check_route_param(";natb(;|$)"))
            setbflag(6);
    }} else {{
        if (check_route_param(";natb(;|$)") || nat_uac_test("1")) {{
            force_rport();
            fix_nated_contact();
        }}
        if (check_route_param(";nata(;|$)"))
            setbflag(6);
    }}
}}
route[RELAY] {{
    if (is_method("INVITE|ACK|UPDATE|PRACK")) {{
        if (has_body("application/sdp"))
            rtpengine_offer("replace-session-connection");
        if (!is_method("ACK"))
            t_on_reply("MEDIA");
    }}
    if (is_method("INVITE"))
        t_on_failure("FAILED");
    if (!t_relay()) {{
        if (is_method("INVITE"))
            rtpengine_delete();
        sl_reply_error();
    }}
    exit;
}}
branch_route[MARK] {{
    if (isbflagset(6))
        add_rr_param(";natb");
}}
onreply_route[MEDIA] {{
    if ($rs < 200 && !has_body())
        exit;
    if ($rs < 300 && (isbflagset(6) || nat_uac_test("1")))
        fix_nated_contact();
    if (has_body("application/sdp"))
        rtpengine_answer("replace-session-connection");
}}
failure_route[FAILED] {{
    rtpengine_delete();
}}
"""
"The routing of examples/kamailio/router.py with Kamailio's own modules: what ``bench.kemi`` measures us beside."


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
    with _started(folder, ["-f", str(config)], core) as process:
        yield process


@contextmanager
def example(
    folder: Path, script: str, listen: str, *, children: int = 1, core: int | None = None, more: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Kamailio with the config of examples/kamailio and a Python script of ours on ``listen``. ``more``: lines
    behind the config's own. LabError if the environment of its Python is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (VENV / "bin" / "python3").exists():
        raise LabError(f"{VENV}: not there; make kamailio-venv")
    router = folder / "script.py"
    router.write_text(script)
    config = folder / "kamailio.cfg"
    config.write_text(f'include_file "{EXAMPLE}/kamailio.cfg"\n{more}')
    options = ["-f", str(config), "-n", str(children), "-l", f"udp:{listen}", "-T", "-A", f'ROUTER="{router}"']
    with _started(folder, options, core, ["env", f"PATH={VENV}/bin:{os.environ['PATH']}:/usr/sbin"]) as process:
        yield process


@contextmanager
def _started(
    folder: Path, options: Sequence[str], core: int | None, wrap: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*wrap, "kamailio", *options, "-DD", "-E", "-m", "256", "-M", "16"]
    argv += ["-Y", str(folder), "-w", str(folder), "-P", str(folder / "pid")]
    with running(pinned(core, argv), folder / "kamailio.log") as process:
        wait_log(process, folder / "kamailio.log", "Aliases")
        yield process

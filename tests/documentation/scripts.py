"""The routings that the hosts run: the shipped example with a probe around it, and the page's own examples."""

import re
from pathlib import Path

from lab.kamailio import EXAMPLE, ROOT
from mediaproxy.edge.script.loading import default_text

DOMAINS = ("sip.test", "gold.test", "named.test")
"Of our users."

# -- the shipped routing, and what a message wants (see probe_kamailio.py)

_PROBE = """

# -- the probe

JOURNAL = {journal!r}


def mark(name):
    return append_hf(name + ": yes")


def save_or_error():
    code = save("location")
    if not code:
        sl_reply_error()
    return code


def run_words(msg, route, words):
    for word in words.split():
        name, _, text = word.partition("=")
        arguments = [int(text[1:]) if text.startswith("#") else text] if text else []
        if name in ("setflag", "isflagset"):
            arguments = [int(text)]
        try:
            code = globals()[name](*arguments)
            said = f"{{int(code)}} {{bool(code)}}"
        except ValueError as error:
            said = f"refused: {{error}}"
        with open(JOURNAL, "a") as journal:
            journal.write(f"{{msg.call_id.encode('latin-1').hex()}} {{route}} {{word}} {{said}}\\n")


def request_route(msg):
    words = msg.header("X-Run")
    if not words:
        return shipped_request_route(msg)
    run_words(msg, "request_route", words)
    if msg.method == "REGISTER":
        return
    if not msg.to_tag:
        record_route()
        lookup()
    if not t_relay():
        sl_reply_error()


def onreply_route(msg):
    words = msg.header("X-Run")
    if not words:
        return shipped_onreply_route(msg)
    run_words(msg, "onreply_route", words)


def branch_route(msg):
    run_words(msg, "branch_route", msg.header("X-Branch"))


def failure_route(msg):
    words = msg.header("X-Failure")
    if not words:
        return shipped_failure_route(msg)
    run_words(msg, "failure_route", words)
"""


def edge_probe(journal: Path) -> str:
    """For the edge."""
    return re.sub(r"^def (\w+_route)\(", r"def shipped_\1(", default_text(), flags=re.M) + _PROBE.format(
        journal=str(journal)
    )


_KAMAILIO = """\
import sys
sys.path[:0] = [{root!r}, {example!r}]
from tests.documentation.probe_kamailio import Probe
def mod_init():
    return Probe({journal!r}, **{settings!r})
"""


def kamailio_probe(journal: Path, settings: dict[str, object]) -> str:
    """For Kamailio: the text of its script."""
    return _KAMAILIO.format(root=str(ROOT), example=str(EXAMPLE), journal=str(journal), settings=settings)


_LOAD = 'loadmodule "app_python3.so"'
NATHELPER = """
loadmodule "nathelper.so"
modparam("nathelper", "natping_interval", 1)
modparam("nathelper", "sipping_from", "sip:ping@sipserver.net")
modparam("nathelper", "sipping_bflag", 2)
"""


def kamailio_config(more: str = "") -> str:
    """Kamailio's shipped config with our domains. ``more``: modules and their parameters."""
    text = (EXAMPLE / "kamailio.cfg").read_text()
    aliases = "\n".join(f'alias="{domain}"' for domain in DOMAINS[1:])
    return text.replace(_LOAD, f"{aliases}\n{more}{_LOAD}")


# -- the page's own examples 1-4 to 1-8, as they stand there, in each host's language

EDGE_EXAMPLES = """\
def request_route(msg):
    if client_nat_test("3"):
        append_hf("X-Natted: yes")
        setflag(6)
        force_rport()
    if client_nat_test("3"):
        fix_contact()
    if msg.method == "INVITE":
        use_media_proxy()
    if msg.method == "BYE":
        end_media_session()
    # what the page leaves to the reader
    if msg.method == "REGISTER":
        save("location")
        return
    if not msg.to_tag:
        record_route()
        lookup()
    t_relay()


def onreply_route(msg):
    if msg.method == "INVITE":
        use_media_proxy()
"""
_NATIVE_EXAMPLES = """\
request_route {
	if (python_exec("client_nat_test", "3")) {
		append_hf("X-Natted: yes\\r\\n");
		setbflag(6);
		force_rport();
	}
	if (python_exec("client_nat_test", "3")) {
		python_exec("fix_contact");
	}
	if (method == "INVITE") {
		python_exec("use_media_proxy");
	}
	if (method == "BYE") {
		python_exec("end_media_session");
	}
	# what the page leaves to the reader
	if (method == "REGISTER") {
		save("location");
		exit;
	}
	if (has_totag()) {
		loose_route();
	} else if (uri != myself || $rU == $null) {
		sl_send_reply("200", "OK");
		exit;
	} else {
		record_route();
		lookup("location");
	}
	t_on_reply("MEDIA");
	t_relay();
}

onreply_route[MEDIA] {
	if (method == "INVITE") {
		python_exec("use_media_proxy");
	}
}

route[NATPING] {
	python_exec("ksr_rtimer_natping");
}

reply_route {
	if (python_exec("natping_reply")) {
		drop;
	}
}
"""
_NATIVE_SCRIPT = """\
import mediaproxy.kamailio
def mod_init():
    return mediaproxy.kamailio.Module(**{settings!r})
"""


def native_config() -> str:
    """The modules of the shipped native config, and the page's examples."""
    return (EXAMPLE / "native.cfg").read_text().partition("request_route {")[0] + _NATIVE_EXAMPLES


def native_script(settings: dict[str, object]) -> str:
    """The functions for it."""
    return _NATIVE_SCRIPT.format(settings=settings)

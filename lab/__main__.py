"""The laboratory by hand: ``python -m lab --help``. Needs root."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from lab.baresip import write_profile
from lab.demo import Result, table
from lab.homes import SERVER, Internet, NatKind
from lab.hosts import Host
from lab.netns import LabError, Namespace, Namespaces, delete, end_on_signals, run, sweep
from lab.phone import Account, Seat, talk
from lab.server import Settings, document
from lab.site import USERS, Site, server_settings

PREFIX = "mphand"
"Of the namespaces that ``up`` leaves standing; there is one such laboratory at a time."


def standing() -> list[str]:
    """The namespaces that ``up`` made."""
    folder = Path("/run/netns")
    return sorted(name for name in os.listdir(folder) if name.startswith(PREFIX + "-")) if folder.exists() else []


def up(kinds: tuple[NatKind, NatKind], same_lan: bool) -> None:
    """Build a laboratory that stays until ``down``."""
    if standing():
        raise LabError("there is one already; `python -m lab down` removes it")
    namespaces = Namespaces(PREFIX)
    internet = Internet(kinds, same_lan=same_lan, namespaces=namespaces)
    namespaces.keep = True
    print(f"{PREFIX}-pub  the public network; the server's address is {SERVER}")
    for name, home in internet.homes.items():
        print(f"{PREFIX}-r{name}   router of home {name}: {home.kind}, public address {home.wan}")
        print(f"{PREFIX}-{name}    the phone of home {name}: {home.address}")
    print(f"{PREFIX}-x    the attacker")
    print("Next: `python -m lab server`, `python -m lab phone a` and `phone b`, each in a terminal of its own.")


def down() -> None:
    """Remove it, with everything that runs in it, and what killed runs left behind."""
    for name in standing():
        delete(name)
        print(f"removed {name}")
    for name in sweep():
        print(f"removed {name} of a run that was killed")


def _in_namespace(what: str, folder: Path, *argv: str) -> int:
    name = f"{PREFIX}-{what}"
    if name not in standing():
        raise LabError("no laboratory is up; `python -m lab up KIND` builds one")
    return subprocess.run(Namespace(name).argv(*argv), cwd=folder, check=False).returncode


def server(folder: Path) -> int:
    """Run the server in the foreground."""
    listeners: list[Settings] = [{"transport": transport, "bind": f"{SERVER}:5060"} for transport in ("udp", "tcp")]
    settings = server_settings(folder, listeners, {"addresses": [{"bind": SERVER}]})
    (folder / "config.toml").write_text(document(settings))
    print(f"ask it from another terminal: mediaproxy calls --config {folder}/config.toml")
    program = str(Path(sys.executable).with_name("mediaproxy"))
    return _in_namespace("pub", folder, program, "run", "--config", str(folder / "config.toml"))


def phone(home: str, folder: Path) -> int:
    """Run a baresip in the foreground; its menu takes commands: ``d sip:bob@sip.test``, ``b`` hangs up, ``q`` ends."""
    user, tone = USERS[home]
    shown = run(["ip", "-n", f"{PREFIX}-{home}", "-o", "-4", "addr", "show", "dev", "eth0"])
    address = shown.split("inet ")[1].split("/")[0]
    write_profile(folder, Seat(address), Account(user=user, proxy=f"{SERVER}:5060"), tone, "stdio.so")
    return _in_namespace(home, folder, "baresip", "-f", str(folder))


def call(kinds: tuple[NatKind, NatKind], same_lan: bool, options: argparse.Namespace) -> None:
    """One call in a laboratory of its own, judged."""
    if options.no_relay and options.host != Host.EDGE:
        raise LabError("--no-relay is for the built-in edge only")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    with Site(kinds, out, same_lan=same_lan, host=Host(options.host)) as site:
        site.start_server({"edge": {"media": not options.no_relay}})
        alice, bob = site.phone("a"), site.phone("b")
        alice.wait_registered()
        bob.wait_registered()
        with site.capture(out / "call.pcap"):
            result = talk(alice, bob, options.seconds)
        wire = site.wire(out / "call.pcap", "a", "b")
    Console().print(table([Result(title="no relay" if options.no_relay else "relay", call=result, wire=wire)]))
    print(f"Recordings, capture and logs: {out}")


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(prog="python -m lab", description="Home routers, phones and a server, by hand.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "build a laboratory that stays"), ("call", "one judged call in a laboratory of its own")):
        command = commands.add_parser(name, help=text)
        command.add_argument("kinds", nargs="+", choices=list(NatKind), metavar="KIND", help=", ".join(NatKind))
        command.add_argument("--same-lan", action="store_true", help="both homes use the same private addresses")
        if name == "call":
            command.add_argument("--seconds", type=float, default=5.0)
            command.add_argument("--host", choices=list(Host), default=Host.EDGE, help="what is in front of the relay")
            command.add_argument("--no-relay", action="store_true", help="signalling help only")
            command.add_argument("--out", default="demo-out/lab", help="folder for recordings, capture and logs")
    commands.add_parser("down", help="remove it")
    commands.add_parser("server", help="run mediaproxy in it, in the foreground")
    commands.add_parser("phone", help="run a phone in it, in the foreground").add_argument("home", choices=("a", "b"))
    return parser.parse_args()


def main() -> int:
    """Do it; the exit status."""
    options = arguments()
    end_on_signals()
    if options.command == "down":
        down()
        return 0
    if options.command in ("server", "phone"):
        with tempfile.TemporaryDirectory(prefix="mediaproxy-lab-") as folder:
            return phone(options.home, Path(folder)) if options.command == "phone" else server(Path(folder))
    kinds = NatKind(options.kinds[0]), NatKind(options.kinds[-1])
    if options.command == "up":
        up(kinds, options.same_lan)
    else:
        call(kinds, options.same_lan, options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"python -m lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

"""What the module brings into a Kamailio process: a process that serves calls must not carry an event loop, TLS or a
command line."""

import subprocess
import sys

_PYTHONS = """\
    __future__ array ast base64 binascii bisect collections contextlib copy copyreg dataclasses datetime decimal dis
    enum errno fnmatch functools gc hashlib heapq hmac importlib inspect ipaddress itertools keyword linecache math
    ntpath numbers opcode operator pathlib platform random re reprlib resource secrets select selectors socket stat
    struct textwrap token tokenize types typing urllib uuid warnings weakref zlib"""
PYTHONS = set(_PYTHONS.split())
"Of Python's own library, with what they import themselves. No asyncio, ssl, sqlite3, threading, subprocess, logging."
OTHERS = {"mediaproxy", "msgspec", "re2", "typing_extensions"}
"Beyond it; typing_extensions because msgspec takes it where it is."
OURS = {
    "accounting",
    "admin",
    "cli",
    "config",
    "dispatcher",
    "edge",
    "explain",
    "link",
    "logs",
    "records",
    "relay",
    "server",
}
"Of our own package: what has no business here."

PROGRAM = """
import sys
before = set(sys.modules)
import mediaproxy.kamailio
print(*sorted(set(sys.modules) - before))
"""


def imported() -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_short_named_list() -> None:
    names = imported()
    packages = {name.partition(".")[0] for name in names}
    assert {name for name in packages if not name.startswith("_") or name == "__future__"} <= PYTHONS | OTHERS
    assert not {name for name in names if name.startswith("mediaproxy.") and name.split(".")[1] in OURS}


def test_python_itself_is_all_that_it_takes() -> None:
    """Nothing of Kamailio is needed to import it, so that a script can be checked outside."""
    assert "KSR" not in imported()

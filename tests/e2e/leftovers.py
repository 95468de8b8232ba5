"""What a run of tests has left on its host: programs, network namespaces, what is pinned, and BPF filesystems.

Only what is its own counts, since several runs may share a host: programs by a mark in their environment, namespaces by
the process that made them, pins and mounts by the run's temporary folder.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mediaproxy.config import Config
from mediaproxy.relay.kernel.pins import Instance, instances
from mediaproxy.server.places import Places
from mediaproxy.server.planes import instance_name

MARK = "TESTS_OF_MEDIAPROXY"
"In the environment of every program that a run starts, however it starts it: the run's process id."
_BPFFS = Path(Config().relay.bpffs)


def mark() -> None:
    """From now on this process's programs are known as its own."""
    os.environ[MARK] = str(os.getpid())


def leftovers(folder: Path, bpffs: Path = _BPFFS) -> list[str]:
    """A line for each thing that is there now. ``folder``: in which the tests had theirs. ``bpffs``: where pins are
    looked for, in addition to the BPF filesystems in the folder."""
    return sorted([*_programs(), *_namespaces(), *_pins(folder, bpffs), *_mounts(folder)])


def _programs() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            environment = dict(one.partition("=")[::2] for one in _strings(path / "environ"))
            if environment.get(MARK) == str(os.getpid()) and int(path.name) != os.getpid():
                test = environment.get("PYTEST_CURRENT_TEST", "no test")
                yield f"program {path.name} of {test}: {' '.join(_strings(path / 'cmdline'))[:200]}"


def _strings(path: Path) -> list[str]:
    return path.read_text(errors="replace").split("\0")


def _namespaces() -> Iterator[str]:
    own = re.compile(rf"mp{os.getpid()}n\d+-")  # lab/netns.py
    with suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            if own.match(name):
                yield f"network namespace {name}"


def _pins(folder: Path, bpffs: Path) -> Iterator[str]:
    config = Config()
    homes = [Path(config.state_dir or "/var/lib/mediaproxy"), *(Path(at) for at, _, _ in os.walk(folder))]
    for path in instances(bpffs):
        name = path.name.rsplit("-", 2)[0]
        home = next((home for home in homes if _instance(home) == name), None)
        if home is not None and not _runs(path):
            yield f"pins {path} of the relay in {home}"


def _instance(home: Path) -> str:
    """What a relay calls its pins that has its state there."""
    places = Places(runtime_dir=home, state_dir=home, records=home)
    return instance_name(Config().relay, places)


def _runs(pins: Path) -> bool:
    """Whether a relay works with them: then it is that program that is left, if it is ours."""
    try:
        Instance.lock(pins).close()
    except BlockingIOError:
        return True
    return not pins.exists()


def _mounts(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        at = before.split()[4]
        if after.startswith("bpf ") and folder in Path(at).parents:
            yield f"BPF filesystem at {at}"

"""The check at the end of the run sees what tests leave behind, and nothing else."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.netns import Namespaces, wait_until
from mediaproxy.config import Config
from mediaproxy.relay.kernel.pins import Instance
from mediaproxy.server.places import Places
from mediaproxy.server.planes import instance_name
from tests.e2e.leftovers import leftovers
from tests.kernelhouse import bpf_filesystem

Left = Callable[..., list[str]]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """What there is now in addition to what other tests of the run may have left."""
    before = leftovers(tmp_path)
    return lambda *bpffs: [line for line in leftovers(tmp_path, *bpffs) if line not in before]


@contextmanager
def sleeping(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs; between two of a process, as with ``setsid``, it has no environment for a moment."""
    with subprocess.Popen(command, env=env) as process:
        try:
            words = Path(f"/proc/{process.pid}/cmdline")
            wait_until("it sleeps", lambda: words.read_bytes().startswith(b"sleep"))
            yield process
        finally:
            process.kill()


def test_a_program(left: Left) -> None:
    with sleeping("setsid", "sleep", "600") as process:
        (line,) = left()
    assert line.startswith(f"program {process.pid} of tests/e2e/test_leftovers.py::test_a_program (call): ")
    assert line.endswith("sleep 600 ")
    assert left() == []


def test_a_program_that_somebody_else_has_started(left: Left) -> None:
    with sleeping("sleep", "600", env={"TESTS_OF_MEDIAPROXY": "1"}):
        assert left() == []


def test_a_namespace(left: Left) -> None:
    spaces = Namespaces()
    name = spaces.add("left").name
    assert left() == [f"network namespace {name}"]
    spaces.close()
    assert left() == []


def test_pins_and_their_filesystem(tmp_path: Path, left: Left) -> None:
    home = tmp_path / "server"
    home.mkdir()
    name = instance_name(Config().relay, Places(runtime_dir=home, state_dir=home, records=home))
    with bpf_filesystem(tmp_path) as bpffs:
        mounted = f"BPF filesystem at {bpffs}"
        instance, other = Instance.open(bpffs, name), Instance.open(bpffs, "server-01234567")
        assert instance is not None and other is not None
        instance.new_set()
        assert left(bpffs) == [mounted], "they are in use"
        other.new_set()
        instance.close()
        other.close()
        assert left(bpffs) == [mounted, f"pins {instance.folder} of the relay in {home}"]
    assert left(bpffs) == []

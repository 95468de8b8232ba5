"""Which plane a relay gets: what its settings ask for, or the best that there is; falling back is said once."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable, path
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.kernel.harvest import Crop, fetch, store
from mediaproxy.relay.kernel.pins import ForeignPinsError, Instance, folder_of
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.settings import PlaneChoice, RelayAddress, RelaySettings
from mediaproxy.relay.slots import BRIEF
from mediaproxy.server import planes
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is closed to us."""

    def kernel(settings: RelaySettings, places: Places) -> planes.Chosen:
        raise FastPathUnavailable("BPF maps", "CAP_BPF is missing")

    monkeypatch.setattr(planes, "_kernel", kernel)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was compiled."""

    def native() -> None:
        raise FastPathUnavailable("the fast path in user space", "it could not be compiled")

    monkeypatch.setattr(planes, "NativePlane", native)


def chosen(plane: PlaneChoice, folder: Path) -> planes.Chosen:
    settings = RelaySettings(addresses=(RelayAddress(bind="127.0.0.1"),), plane=plane, bpffs="")
    return planes.choose_plane(settings, Places(runtime_dir=folder, state_dir=folder, records=folder / "records"))


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("plane", ["auto", "native", "user"])
def test_user_space(plane: PlaneChoice, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = chosen(plane, tmp_path)
    assert found.plane.name == ("user" if plane == "user" else "native")
    assert (" in C)" in found.where) == (plane != "user")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (plane == "auto") and bool(found.why_not) == (plane == "auto")


@pytest.mark.usefixtures("closed", "bare")
def test_python_is_the_last_resort(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = chosen("auto", tmp_path)
    assert found.plane.name == "user"
    assert [record.getMessage() for record in caplog.records] == [
        "media is relayed in user space, not in the kernel: BPF maps: CAP_BPF is missing",
        "media in user space goes through Python: the fast path in user space: it could not be compiled",
    ]
    shown = "BPF maps: CAP_BPF is missing; and through Python: the fast path in user space: it could not be compiled"
    assert found.why_not == shown  # `mediaproxy calls` says it as long as it is so


@pytest.mark.usefixtures("closed", "bare")
@pytest.mark.parametrize("plane", ["kernel", "native"])
def test_who_insists_does_not_start_without(plane: PlaneChoice, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be relayed"):
        chosen(plane, tmp_path)


@pytest.mark.parametrize(("plane", "found"), [("auto", "native"), ("kernel", "")])
def test_what_the_host_refuses_by_surprise_is_no_reason_not_to_start(
    plane: PlaneChoice, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container without /proc, for instance."""

    def kernel(settings: RelaySettings, places: Places) -> planes.Chosen:
        raise OSError(errno.ENOENT, "No such file or directory", "/proc/self/ns/net")

    monkeypatch.setattr(planes, "_kernel", kernel)
    if not found:
        with pytest.raises(StartError, match="No such file"):
            chosen(plane, tmp_path)
        return
    assert chosen(plane, tmp_path).plane.name == found
    assert "not in the kernel: [Errno 2] No such file or directory: '/proc/self/ns/net'" in caplog.text


def test_ports_of_another_relay_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(settings: RelaySettings, places: Places) -> planes.Chosen:
        raise OSError(errno.EADDRINUSE, "ports belong to another relay")

    monkeypatch.setattr(planes, "_kernel", kernel)
    with pytest.raises(StartError, match="ports belong to another relay"):
        chosen("auto", tmp_path)


def test_pins_of_another_user_are_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, access = folder_of(tmp_path, "relay-1"), os.access
    (folder / "1").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    for _ in range(2):  # nothing is kept locked
        with pytest.raises(ForeignPinsError, match="who ran this relay before: let .* relay --release` once"):
            Instance.open(tmp_path, "relay-1", make=False)
    monkeypatch.setattr(planes, "clear", lambda *_: None)
    settings = RelaySettings(
        addresses=(RelayAddress(bind="127.0.0.1"),), plane="user", bpffs=str(tmp_path), instance="relay-1"
    )
    places = Places(runtime_dir=tmp_path, state_dir=tmp_path, records=tmp_path / "records")
    assert planes.choose_plane(settings, places).plane.name == "user"
    assert "streams of an earlier process stay in the kernel" in caplog.text and (folder / "1").exists()


def test_pins_in_a_filesystem_that_nobody_may_write_are_not_called_another_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, access = folder_of(tmp_path, "relay-1"), os.access
    (folder / "1").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(FastPathUnavailable, match="remount,rw") as told:
        Instance.open(tmp_path, "relay-1", make=False)
    assert not isinstance(told.value, ForeignPinsError)


def test_without_sys_there_is_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long per-CPU values are is not guessed: the kernel would write beyond them."""
    monkeypatch.setattr(path, "_POSSIBLE", Path("/nowhere"))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FastPathUnavailable, match="mount /sys"):
        path.KernelPath.create(Control(ports=PortMap(addresses=(("192.0.2.1", "192.0.2.1"),), port_min=20000, ports=4)))
    assert os.listdir("/proc/self/fd") == before


# -- what was counted before `mediaproxy relay --release`

CROP: Crop = [(Flow(local=Endpoint("192.0.2.1", 20000), generation=7), tuple(range(1, 1 + len(BRIEF))))]


def test_what_was_released_is_counted_once(tmp_path: Path) -> None:
    file = tmp_path / "released.counters"
    store(CROP, file)
    assert fetch(file) == CROP and fetch(file) == [] and not list(tmp_path.iterdir())


def test_what_is_kept_is_the_relays_alone(tmp_path: Path) -> None:
    """Root writes it into a directory that is the relay's user's, who must not lead it elsewhere."""
    file, elsewhere = tmp_path / "released.counters", tmp_path / "passwd"
    elsewhere.write_text("root")
    file.symlink_to(elsewhere)
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65533)
    store(CROP, file)
    assert elsewhere.read_text() == "root" and not file.is_symlink()
    found, above = file.stat(), tmp_path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (above.st_uid, above.st_gid, 0o600)
    assert fetch(file) == CROP


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80", None])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, data: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "released.counters"
    if data is None:  # of another boot
        store(CROP, file)
        monkeypatch.setattr("mediaproxy.relay.kernel.harvest.boot_id", lambda: "another")
    else:
        file.write_bytes(data)
    assert fetch(file) == [] and not file.exists()


@pytest.mark.usefixtures("closed")
def test_the_next_start_is_told(tmp_path: Path) -> None:
    store(CROP, tmp_path / "released.counters")
    assert [flow for flow, _ in chosen("auto", tmp_path).left()] == [CROP[0][0]]
    assert list(chosen("auto", tmp_path).left()) == []

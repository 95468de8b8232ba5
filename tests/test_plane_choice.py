"""Which plane a relay gets: what its settings ask for, or the best that there is; falling back is said once."""

from pathlib import Path

import pytest

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.settings import PlaneChoice, RelayAddress, RelaySettings
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
    assert ("threads in C" in found.where) == (plane != "user")
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

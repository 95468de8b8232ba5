"""What the doctor says of hosts that lack something, and that it leaves nothing behind."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mediaproxy import doctor
from mediaproxy.cli.doctor import page
from mediaproxy.doctor import Finding, Grade, Report, examine
from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.bpf.rtnetlink import is_card
from mediaproxy.relay.kernel.pins import folder_of
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from tests.test_cli import cli

KERNEL = {"kernel", "object file", "privileges", "bpf(2)", "program", "TC", "sk_lookup", "JIT"}
SILENCE = (
    "media is relayed in user space and ends with the process: nobody hears anybody until the next one has started"
)
HOST = {"fast path", "restarts", "addresses", "ports", "native XDP", "open files", "uvloop"}


def settings(**more: Any) -> RelaySettings:
    return RelaySettings(**{"addresses": (RelayAddress(bind="127.0.0.1"),), "plane": "auto", **more})


def finding(report: Report, what: str) -> Finding:
    (found,) = [one for one in report.findings if one.what == what]
    return found


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which forwarding in the kernel works."""
    monkeypatch.setattr(doctor, "_kernel", lambda: iter([Finding(what="kernel", grade=Grade.GOOD, found="Linux")]))


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which it does not."""
    found = Finding(what="bpf(2)", grade=Grade.BAD, found="refused", advice="allow it")
    monkeypatch.setattr(doctor, "_kernel", lambda: iter([found]))


@pytest.mark.e2e
def test_a_host_that_can(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("missing: root")
    before = os.listdir("/proc/self/fd")
    report = examine(settings(bpffs=str(tmp_path)))
    assert {one.what for one in report.findings} == KERNEL | HOST
    assert report.plane == "kernel" and not report.bad
    assert os.listdir("/proc/self/fd") == before and not list(tmp_path.iterdir())


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without a compiler."""

    def extension() -> None:
        raise FastPathUnavailable("the fast path in user space", "it could not be compiled")

    monkeypatch.setattr(doctor, "extension", extension)


@pytest.mark.parametrize(
    ("plane", "works", "chosen", "bad", "words"),
    [
        ("auto", True, "kernel", False, "media would be relayed in the kernel"),
        ("auto", False, "native", True, "media would be relayed in user space, by threads in C"),
        ("kernel", True, "kernel", False, "media would be relayed in the kernel"),
        ("kernel", False, "", True, "the relay would not start with these settings"),
        ("native", True, "native", False, "by threads in C, as relay.plane says; the kernel could do it"),
        ("native", False, "native", False, "by threads in C, as relay.plane says"),
        ("user", True, "user", False, "by Python, on one core, as relay.plane says; the kernel could do it"),
        ("user", False, "user", False, "by Python, on one core, as relay.plane says"),
    ],
)
def test_conclusions(
    plane: str, works: bool, chosen: str, bad: bool, words: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("able" if works else "unable")
    report = examine(settings(plane=plane))
    assert (report.plane, report.bad) == (chosen, bad) and words in report.conclusion


@pytest.mark.parametrize(
    ("plane", "chosen", "bad", "words"),
    [
        ("auto", "user", True, "media would be relayed in user space, by Python, on one core"),
        ("native", "", True, "the relay would not start with these settings"),
        ("user", "user", False, "as relay.plane says"),
    ],
)
@pytest.mark.usefixtures("unable", "no_extension")
def test_conclusions_without_the_extension(plane: str, chosen: str, bad: bool, words: str) -> None:
    report = examine(settings(plane=plane))
    assert (report.plane, report.bad) == (chosen, bad) and words in report.conclusion
    found = finding(report, "fast path")
    assert found.found == "it could not be compiled" and "half as much again" in found.advice


@pytest.mark.parametrize(
    ("release", "grade"),
    [
        ("6.18.44", Grade.GOOD),
        ("5.11.0-8-amd64", Grade.GOOD),
        ("5.10.0", Grade.BAD),
        ("4.19", Grade.BAD),
        ("?", Grade.BAD),
    ],
)
def test_kernel_releases(release: str, grade: Grade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    assert doctor._release().grade is grade


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        ("000001ffffffffff", ""),
        ("0000008000001000", ""),
        ("0000000000201000", ""),
        ("0000000000001000", "without CAP_BPF"),
        ("0000008000000000", "without CAP_NET_ADMIN"),
        ("0000000000000000", "without CAP_NET_ADMIN and CAP_BPF"),
    ],
)
def test_privileges(effective: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_read", lambda path: f"Name:\tx\nCapEff:\t{effective}\nCapBnd:\t0\n")
    found = doctor._privileges()
    assert found.grade is (Grade.BAD if missing else Grade.GOOD)
    assert missing in found.found and ("AmbientCapabilities" in found.advice) == bool(missing)


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({"/sys/kernel/security/lockdown": "none integrity [confidentiality]"}, "locked down"),
        ({"/proc/self/status": "Seccomp:\t2\n", "/proc/self/uid_map": "0 0 4294967295"}, "seccomp"),
        ({"/proc/self/uid_map": "0 100000 65536"}, "user namespace"),
        ({"/proc/self/uid_map": "         0          0 4294967295\n"}, "security module"),
    ],
)
def test_why_bpf_is_refused(files: dict[str, str], advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, "creating the map doctor: Operation not permitted")

    monkeypatch.setattr("mediaproxy.relay.bpf.syscalls.map_create", refuse)
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    found = doctor._bpf()
    assert found.grade is Grade.BAD and advice in found.advice


def test_a_program_that_does_not_load_ends_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_release", "_object", "_privileges", "_bpf"):
        monkeypatch.setattr(doctor, name, lambda: Finding(what="x", grade=Grade.GOOD, found=""))

    class Refused:
        @staticmethod
        def create(control: object) -> None:
            raise FastPathUnavailable("BPF programs", "loading the program: Invalid argument\n(kernel 5.4)")

    monkeypatch.setattr(doctor, "KernelPath", Refused)
    *_, last = doctor._kernel()
    assert (last.what, last.grade, last.found) == ("program", Grade.BAD, "loading the program: Invalid argument")


def test_addresses_that_are_not_here(able: None) -> None:
    report = examine(settings(addresses=(RelayAddress(bind="192.0.2.1"),)))
    found = finding(report, "addresses")
    assert found.grade is Grade.BAD and "192.0.2.1: Cannot assign" in found.found
    assert report.plane == "" and report.bad


def test_addresses_that_are(able: None) -> None:
    found = finding(
        examine(settings(addresses=(RelayAddress(bind="127.0.0.1", advertise="203.0.113.9"),))), "addresses"
    )
    assert found == Finding(what="addresses", grade=Grade.GOOD, found="127.0.0.1 on lo, advertised as 203.0.113.9")


def test_interfaces_that_are_not_here(able: None) -> None:
    report = examine(settings(addresses=(RelayAddress(bind="127.0.0.1"),), interfaces=("lo", "eth99")))
    found = finding(report, "addresses")
    assert found.grade is Grade.NOTE and found.advice == "relay.interfaces: there is no eth99 here"


def test_root_in_a_container_may_not_mount(able: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the relay's two capabilities (docker run --cap-add BPF --cap-add NET_ADMIN) and nothing else."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for held, grade in ((1 << 39 | 1 << 12, Grade.NOTE), (1 << 21 | 1 << 12, Grade.GOOD)):
        monkeypatch.setattr(doctor, "_held", lambda held=held: held)
        found = finding(examine(settings(bpffs=str(tmp_path))), "restarts")
        assert found.grade is grade
        assert ("end with the process" in found.found) == (grade is Grade.NOTE)
        assert (f"mount -t bpf bpf {tmp_path}" in found.advice) == (grade is Grade.NOTE)


def test_a_place_that_this_user_may_not_look_at(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor never raises."""
    monkeypatch.setattr(doctor, "is_bpffs", lambda path: False)
    exists = Path.exists

    def refused(path: Path) -> bool:
        if path == Path("/somewhere/else"):
            raise PermissionError(13, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", refused)
    assert finding(examine(settings(bpffs="/somewhere/else")), "restarts").grade in (Grade.NOTE, Grade.GOOD)


def test_a_bpf_filesystem_that_is_read_only(able: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_bpffs", lambda path: True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("os.statvfs", lambda path: os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255)))
    found = finding(examine(settings(bpffs=str(tmp_path))), "restarts")
    assert "is read-only" in found.advice and f"mount -o remount,rw {tmp_path}" in found.advice


@pytest.mark.parametrize(("plane", "chosen"), [("auto", "native"), ("kernel", "")])
def test_pins_of_the_user_who_ran_it_before(
    able: None, plane: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root tried it out, and now the service's user runs it: root's program still takes the packets."""
    folder = folder_of(tmp_path, "relay-1")
    folder.mkdir(parents=True)
    monkeypatch.setattr(doctor, "is_bpffs", lambda path: True)
    monkeypatch.setattr(doctor, "is_foreign", lambda path: path == folder)
    report = examine(settings(bpffs=str(tmp_path), plane=plane), "relay-1")
    found = finding(report, "restarts")
    assert found.grade is Grade.BAD and str(folder) in found.found
    assert "let root run `mediaproxy relay --release`" in found.advice
    assert report.plane == chosen and report.bad


def test_without_sys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.relay.bpf.syscalls.map_create", lambda *_: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setattr(doctor, "_PROCESSORS", "/nowhere")
    found = doctor._bpf()
    assert found.grade is Grade.BAD and "mount /sys" in found.advice


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_read", lambda path: "")
    found = doctor._privileges()
    assert found.grade is Grade.BAD and found.advice == "mount /proc"


@pytest.mark.parametrize(
    ("bpffs", "words"),
    [("", "set relay.bpffs"), ("/proc", "mount -t bpf bpf /proc")],
)
def test_no_place_for_pins(able: None, bpffs: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = finding(examine(settings(bpffs=bpffs)), "restarts")
    assert found.grade is Grade.NOTE and "end with the process" in found.found and words in found.advice
    assert (
        "nobody hears anybody until the next one has started, and calls end if that takes more than 60 s" in found.found
    )


@pytest.mark.parametrize(
    ("host", "more", "lost", "advice"),
    [
        ("unable", {}, SILENCE, "media would flow on: do what is said of bpf(2) above"),
        ("unable", {"bpffs": ""}, SILENCE, "media would flow on: do what is said of bpf(2) above"),
        ("unable", {"plane": "user"}, SILENCE, 'set relay.plane = "auto" and do what is said of bpf(2) above'),
        ("able", {"plane": "native"}, SILENCE, 'media would flow on: set relay.plane = "auto"'),
        ("unable", {"restart_within": 5.0}, "calls end if that takes more than 5 s", "restart when few are talking"),
        ("unable", {"restart_within": 0.0}, "a restart ends all calls", "set relay.restart_within"),
        ("able", {"journal": False}, "ends all calls, and a kill leaves no record of them", "relay.journal = true"),
    ],
)
def test_restarts_that_lose_something(
    host: str, more: dict[str, Any], lost: str, advice: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Even if root could pin what is in the kernel."""
    request.getfixturevalue(host)
    found = finding(examine(settings(**{"bpffs": str(tmp_path), **more})), "restarts")
    assert found.grade is Grade.NOTE and lost in found.found and advice in found.advice


def test_restarts_that_lose_nothing(able: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found = finding(examine(settings(bpffs=str(tmp_path))), "restarts")
    assert found.grade is Grade.GOOD and "outlive the process" in found.found


def test_ports_that_others_may_get(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "port_warnings", lambda settings: ["5 of the relay's ports are ephemeral. Set the sysctl"]
    )
    found = finding(examine(settings()), "ports")
    assert found == Finding(
        what="ports", grade=Grade.NOTE, found="5 of the relay's ports are ephemeral", advice="Set the sysctl"
    )


def test_a_low_limit_of_open_files(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    found = finding(examine(settings()), "open files")
    assert found.grade is Grade.NOTE and "enough for 896 calls in user space" in found.found  # 512 files are no sockets


def test_open_files_that_are_enough_for_some(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 20000))
    found = finding(examine(settings()), "open files")
    assert found.grade is Grade.GOOD and "enough for 4872 calls in user space" in found.found


def test_xdp_on_what_has_none(able: None) -> None:
    found = finding(examine(settings(xdp=("lo",))), "native XDP")
    assert found.grade is Grade.NOTE and "take lo out of relay.xdp" in found.advice


def test_cards_of_another_namespace_do_not_count(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """/sys may show the host's, where eth0 is hardware."""
    monkeypatch.setattr("mediaproxy.doctor.is_card", lambda name: False)
    found = finding(examine(settings(xdp=("eth0",))), "native XDP")
    assert found.found == "no network cards, only virtual interfaces, which cannot" and "take eth0" in found.advice


@pytest.mark.parametrize("name", ["lo", "nowhere"])
def test_what_is_no_card(name: str) -> None:
    assert not is_card(name)


def test_a_page(unable: None) -> None:
    lines = [line.plain for line in page(examine(settings()))]
    assert lines[0] == "bad   bpf(2)      refused" and lines[1] == "                  → allow it"
    assert lines[-1] == "media would be relayed in user space, by threads in C"


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[relay]\naddresses = [{ bind = "192.0.2.1" }]\n')
    done = cli("doctor", "--config", "c.toml", home=tmp_path)
    assert done.returncode == 1 and "192.0.2.1: Cannot assign requested address" in done.stdout and done.stderr == ""
    (tmp_path / "c.toml").write_text('[relay]\nplane = "user"\naddresses = [{ bind = "127.0.0.1" }]\n')
    done = cli("doctor", "--json", "--config", "c.toml", home=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["plane"] == "user"
    assert {"what", "grade", "found", "advice"} == set(told["findings"][0])

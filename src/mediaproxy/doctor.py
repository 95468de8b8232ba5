"""[shell] What this host lets a relay do, and why not, in words that an operator can act on.

A relay's settings come in, findings go out; everything is tried, not guessed, and nothing is left behind. It must never
raise: what cannot be found out is a finding, too.
"""

import errno
import os
import platform
import re
import resource
import socket
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from mediaproxy.relay.bpf import FastPathUnavailable, KernelPath, attach, attach_lookup, interface, syscalls
from mediaproxy.relay.bpf.objects import load_object
from mediaproxy.relay.bpf.rtnetlink import is_card
from mediaproxy.relay.kernel.netlink import Netlink
from mediaproxy.relay.kernel.pins import ForeignPinsError, folder_of, is_bpffs, is_foreign, pins_advice
from mediaproxy.relay.kernel.selftest import try_out
from mediaproxy.relay.lending import PER_CALL, spared
from mediaproxy.relay.native import extension
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.service import port_warnings
from mediaproxy.relay.settings import RelaySettings

_OLDEST = (5, 11)
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_BPF": 39}
_ADMIN = 21
"CAP_SYS_ADMIN includes CAP_BPF."
_MANY_FILES = 16384
_TRIAL = PortMap(addresses=(("192.0.2.1", "192.0.2.1"),), port_min=20000, ports=4)
"Of maps that are only tried: addresses that nobody has (RFC 5737)."
_XDP_DRIVERS = """
    atlantic bnxt_en bonding dpaa ena enetc fec gve hv_netvsc i40e ice idpf igb igc ixgbe ixgbevf lan966x mana mlx4_en
    mlx5_core mtk_soc_eth mvneta mvpp2 nfp octeontx2 qede sfc stmmac tsnep virtio_net vmxnet3 xen_netfront
"""
"Drivers with native XDP, as of Linux 6.18."
_PROCESSORS = "/sys/devices/system/cpu/possible"
"Maps have a value for each of them."
_FORWARDING = "/proc/sys/net/ipv4/conf/{}/forwarding"


class Grade(StrEnum):
    """How good a finding is."""

    GOOD = "good"
    NOTE = "note"
    "Works, but could be better."
    BAD = "bad"
    "Keeps the relay from what its settings ask for."


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    grade: Grade
    found: str
    advice: str = ""
    "What to do, unless all is good."


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything."""

    findings: tuple[Finding, ...]
    plane: str
    "``kernel``, ``native`` or ``user``: what would forward media. Empty: the relay would not start."
    conclusion: str
    "The same in words."

    @property
    def bad(self) -> bool:
        """Whether something keeps the relay from what its settings ask for."""
        return any(finding.grade is Grade.BAD for finding in self.findings)


def examine(settings: RelaySettings, instance: str = "") -> Report:
    """Look at this host, as the present user. ``instance``: what the relay's pins are called."""
    kernel = list(_kernel())
    lacks = next((finding.what for finding in kernel if finding.grade is Grade.BAD), "")
    if settings.plane in ("native", "user"):
        kernel = [_softened(finding) for finding in kernel]
    fast = _fast(settings)
    others = [check(settings) for check in (_addresses, _ports, _cards, _files, _loop)]
    unusable = any(finding.grade is Grade.BAD for finding in others)
    restarts = _restarts(settings, lacks, instance)
    able = not lacks and restarts.grade is not Grade.BAD and not unusable
    conclusion = _conclusion(settings, able, fast.grade is Grade.GOOD, unusable)
    return Report(findings=(*kernel, fast, restarts, *others), **conclusion)


def _conclusion(settings: RelaySettings, kernel: bool, native: bool, unusable: bool) -> dict[str, str]:
    """``kernel`` and ``native``: whether media can be relayed so."""
    wanted = settings.plane
    if unusable or (wanted == "kernel" and not kernel) or (wanted == "native" and not native):
        return {"plane": "", "conclusion": "the relay would not start with these settings"}
    if wanted != "user" and kernel and wanted != "native":
        return {"plane": "kernel", "conclusion": "media would be relayed in the kernel"}
    plane = "native" if native and wanted != "user" else "user"
    how = {"native": "by threads in C", "user": "by Python, on one core"}[plane]
    says = "" if wanted == "auto" else ", as relay.plane says" + ("; the kernel could do it" if kernel else "")
    return {"plane": plane, "conclusion": f"media would be relayed in user space, {how}{says}"}


def _softened(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, grade=Grade.NOTE) if finding.grade is Grade.BAD else finding


def _good(what: str, found: str) -> Finding:
    return Finding(what=what, grade=Grade.GOOD, found=found)


def _note(what: str, found: str, advice: str) -> Finding:
    return Finding(what=what, grade=Grade.NOTE, found=found, advice=advice)


def _bad(what: str, found: str, advice: str) -> Finding:
    return Finding(what=what, grade=Grade.BAD, found=found, advice=advice)


# -- the kernel


def _kernel() -> Iterator[Finding]:
    """What forwarding in the kernel needs, up to the first thing that is missing."""
    for check in (_release, _object, _privileges, _bpf):
        finding = check()
        yield finding
        if finding.grade is Grade.BAD:
            return
    try:
        kernel = KernelPath.create(Control(ports=_TRIAL))
    except FastPathUnavailable as error:
        yield _bad(
            "program",
            _first_line(error.needs),
            "if the kernel is recent enough, please report this, with what the relay says at its start",
        )
        return
    try:
        yield from _hooks(kernel)
    finally:
        kernel.close()
    yield _compiler()


def _hooks(kernel: KernelPath) -> Iterator[Finding]:
    yield _tried("program", lambda: _loaded(kernel))
    yield _tried("TC", lambda: _attached(kernel))
    yield _tried("sk_lookup", lambda: _looked_up(kernel))


def _tried(what: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except FastPathUnavailable as error:
        return _bad(what, _first_line(error.needs), "a kernel with CONFIG_NET_CLS_BPF and CONFIG_BPF_SYSCALL has it")


def _loaded(kernel: KernelPath) -> Finding:
    try_out(kernel, Control(ports=_TRIAL))
    return _good("program", "loaded, and has forwarded a test packet")


def _attached(kernel: KernelPath) -> Finding:
    attachment = attach(interface("lo"), kernel.programs["tc/ethernet"])
    attachment.detach()
    if attachment.hook == "tcx":
        return _good("TC", "TCX (tried on lo)")
    return _good("TC", "clsact (tried on lo); TCX comes with Linux 6.6")


def _looked_up(kernel: KernelPath) -> Finding:
    os.close(attach_lookup(kernel.programs["sk_lookup"]))
    return _good("sk_lookup", "attached and detached")


def _release() -> Finding:
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if platform.system() != "Linux" or numbers is None:
        return _bad("kernel", f"{platform.system()} {release}", "only Linux can relay media in the kernel")
    if (int(numbers[1]), int(numbers[2])) < _OLDEST:
        return _bad("kernel", f"Linux {release}", "install Linux 5.11 or later")
    return _good("kernel", f"Linux {release}")


def _object() -> Finding:
    try:
        load_object()
    except FastPathUnavailable as error:
        return _bad("object file", error.needs, "pip install --force-reinstall --no-cache-dir mediaproxy")
    return _good("object file", "relay.bpf.o is of this version")


def _privileges() -> Finding:
    if not _read("/proc/self/status"):
        return _bad("privileges", "/proc/self/status cannot be read, so nothing is known of them", "mount /proc")
    held = _held()
    if held >> _ADMIN & 1:
        held |= 1 << _CAPABILITIES["CAP_BPF"]
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if not missing:
        return _good("privileges", "CAP_BPF and CAP_NET_ADMIN")
    return _bad(
        "privileges",
        f"without {' and '.join(missing)}",
        "run this as the user of the relay, and give its unit AmbientCapabilities=CAP_BPF CAP_NET_ADMIN (in a "
        "container: --cap-add BPF --cap-add NET_ADMIN)",
    )


def _held() -> int:
    """The effective capabilities, as bits."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", _read("/proc/self/status"), re.MULTILINE)
    return int(match[1], 16) if match else 0


def _bpf() -> Finding:
    try:
        os.close(syscalls.map_create("doctor", 2, 4, 8, 1, 0))
    except OSError as error:
        return _bad("bpf(2)", f"refused: {error.strerror}", _why_refused())
    if not _read(_PROCESSORS):
        return _bad("bpf(2)", f"allowed, but {_PROCESSORS} cannot be read", "mount /sys; read-only is enough for that")
    return _good("bpf(2)", "allowed")


def _why_refused() -> str:
    """The capabilities are there, and still it was refused."""
    lockdown = re.search(r"\[(\w+)\]", _read("/sys/kernel/security/lockdown"))
    if lockdown and lockdown[1] == "confidentiality":
        return "the kernel is locked down (lockdown=confidentiality): boot it with integrity or none"
    if re.search(r"^Seccomp:\s*2", _read("/proc/self/status"), re.MULTILINE):
        return "a seccomp filter may forbid it: give the container a profile that allows bpf(2)"
    if _read("/proc/self/uid_map").split() != ["0", "0", "4294967295"]:
        return "a user namespace has no such privileges: run the relay outside of it (rootful container)"
    return "a security module may forbid it: look into the kernel's log"


def _compiler() -> Finding:
    if _read("/proc/sys/net/core/bpf_jit_enable").strip() == "0":
        return _note("JIT", "BPF programs are interpreted", "sysctl -w net.core.bpf_jit_enable=1")
    return _good("JIT", "BPF programs are compiled")


def _fast(settings: RelaySettings) -> Finding:
    """The compiled part of user space."""
    try:
        extension()
    except FastPathUnavailable as error:
        grade = Grade.BAD if settings.plane == "native" else Grade.NOTE
        advice = (
            "pip install --force-reinstall --no-cache-dir mediaproxy (Python costs half as much again, on one core)"
        )
        return Finding(what="fast path", grade=grade, found=_first_line(error.needs), advice=advice)
    return _good("fast path", "user space has threads in C")


# -- the rest of the host


def _restarts(settings: RelaySettings, lacks: str, instance: str) -> Finding:
    """What a restart of the relay costs. ``lacks``: the finding that keeps the kernel closed; empty: it is open."""
    what = "restarts"
    if not settings.journal:
        return _note(what, "a restart ends all calls, and a kill leaves no record of them", "set relay.journal = true")
    if not settings.restart_within:
        return _note(what, "a restart ends all calls", "set relay.restart_within to the seconds that a start may take")
    ways = [] if settings.plane in ("auto", "kernel") else ['set relay.plane = "auto"']
    ways += [f"do what is said of {lacks} above"] if lacks else []
    if not ways:
        return _pins(settings, what, instance)
    advice = f"restart when few are talking; in the kernel media would flow on: {' and '.join(ways)}"
    return _note(what, f"media is relayed in user space and ends with the process: {_silence(settings)}", advice)


def _silence(settings: RelaySettings) -> str:
    """What is lost if no stream outlives the process."""
    return (
        "nobody hears anybody until the next one has started, and calls end if that takes more than "
        f"{settings.restart_within:g} s"
    )


def _pins(settings: RelaySettings, what: str, instance: str) -> Finding:
    """Whether what is in the kernel stays there without the process."""
    lost = f"streams in the kernel end with the process: {_silence(settings)}"
    if not settings.bpffs:
        return _note(what, lost, "set relay.bpffs to a BPF filesystem")
    path = Path(settings.bpffs)
    folder = path / "mediaproxy"
    try:
        if is_bpffs(path):
            own = folder_of(path, instance)
            if instance and is_foreign(own):
                error = ForeignPinsError(own)
                return _bad(
                    what, f"{error.feature} are another user's: nothing can be relayed in the kernel", error.needs
                )
            place = folder if folder.exists() else path
            if os.access(place, os.W_OK | os.X_OK):
                return _good(what, f"streams in the kernel outlive the process (pinned in {folder})")
            refused: OSError = PermissionError(errno.EACCES, f"{place} is not this user's")
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                refused = OSError(errno.EROFS, f"{place} is read-only")
            return _note(what, lost, pins_advice(refused, path))
    except OSError as error:
        return _note(what, lost, pins_advice(error, path))
    if _may_mount(path):
        return _good(what, f"streams in the kernel outlive the process (a BPF filesystem will be mounted at {path})")
    missing = PermissionError(13, f"{path} is no BPF filesystem")
    return _note(what, lost, pins_advice(missing, path))


def _may_mount(path: Path) -> bool:
    """Whether a BPF filesystem can be mounted there: in many a container root may not."""
    there = next(one for one in (path, *path.parents) if os.access(one, os.F_OK))  # exists() may raise
    return os.geteuid() == 0 and bool(_held() >> _ADMIN & 1) and (there == path or os.access(there, os.W_OK))


def _addresses(settings: RelaySettings) -> Finding:
    netlink = Netlink()
    try:
        links, words = netlink.links(), []
        for address in settings.addresses:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address.bind, 0))
            names = sorted(links[index].name for index in netlink.carriers(address.bind) if index in links)
            shown = f", advertised as {address.public}" if address.public != address.bind else ""
            words.append(f"{address.bind} on {', '.join(names) or 'no interface'}{shown}")
    except OSError as error:
        return _bad("addresses", f"{address.bind}: {error.strerror}", "set relay.addresses to addresses of this host")
    finally:
        netlink.close()
    there = {link.name for link in links.values()}
    if missing := [name for name in settings.interfaces if name not in there]:
        return _note("addresses", "; ".join(words), f"relay.interfaces: there is no {', '.join(missing)} here")
    return _good("addresses", "; ".join(words))


def _ports(settings: RelaySettings) -> Finding:
    mine = settings.even_ports
    for warning in port_warnings(settings):
        found, _, advice = warning.partition(". ")
        return _note("ports", found, advice)
    return _good("ports", f"{mine.start} to {mine[-1] + 1}, which no other program is given by chance")


def _cards(settings: RelaySettings) -> Finding:
    what = "native XDP"
    paths = {path.parts[-3]: path for path in Path("/sys/class/net").glob("*/device/driver")}
    drivers = {name: path.resolve().name for name, path in paths.items() if is_card(name)}
    able = [name for name in sorted(drivers) if drivers[name] in _XDP_DRIVERS.split()]
    words = [f"{name} ({drivers[name]}) {'can' if name in able else 'cannot'}" for name in sorted(drivers)]
    found = ", ".join(words) or "no network cards, only virtual interfaces, which cannot"
    unable = [name for name in settings.xdp if name not in able]
    if unable:
        return _note(what, found, f"take {', '.join(unable)} out of relay.xdp: TC alone forwards what comes in there")
    shut = [name for name in settings.xdp if _read(_FORWARDING.format(name)).strip() == "0"]
    if shut:
        return _note(what, found, f"sysctl -w net.ipv4.conf.{shut[0]}.forwarding=1, or TC does all of the work")
    return _good(what, found + (f"; used on {', '.join(settings.xdp)}" if settings.xdp else ""))


def _files(settings: RelaySettings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return _good("open files", f"{soft}, and any number if needed")
    enough = f"enough for {spared(hard) // PER_CALL} calls in user space; calls in the kernel need none"
    if hard >= _MANY_FILES:
        return _good("open files", f"{soft}, and {hard} if needed: {enough}")
    found = f"at most {hard}: {enough}"
    return _note("open files", found, "raise it if media is relayed in user space (ulimit -n, LimitNOFILE=)")


def _loop(settings: RelaySettings) -> Finding:
    try:
        return _good("uvloop", version("uvloop"))
    except PackageNotFoundError:
        return _note("uvloop", "not installed", "pip install 'mediaproxy[fast]': packets in user space cost less")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""

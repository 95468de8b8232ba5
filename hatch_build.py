"""The build hook: compiles the two C programs when the wheel or the editable install is built.

One is for the kernel (``relay.bpf.o``), one for Python (``fastpath.abi3.so``). Nothing binary is in the repository.
They are written beside their sources, where an editable install finds them and from where they go into the wheel. The
compiler is ``BPF_CLANG`` if that is set, else the clang inside ``ziglang``, which pip downloads for the build alone,
and only if there is something to compile; without it ``cc`` makes the second one. Python's headers are not needed.
What cannot be compiled is left out with a warning, and the installation succeeds: media is then relayed without it.
"""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
RELAY = HERE / "src" / "mediaproxy" / "relay"

ZIGLANG = "ziglang>=0.17,<0.18"
_MACHINE = platform.machine()
_MUSL = "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")
_OLD_GLIBC = _MACHINE in ("x86_64", "aarch64") and not _MUSL
"Whether ziglang can compile for a glibc that is older than any distribution in use."


class Product:
    """One file that is compiled."""

    def __init__(self, name: str, source: str, what: str, instead: str) -> None:
        self.output, self.source = RELAY / name, RELAY / source
        self.what, self.instead = what, instead
        self.patterns = ("*.bpf.[ch]",) if source.endswith(".bpf.c") else ("*.bpf.h", "*.abi.h", source)

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Compilers with all options but the files, the best first, and the platform that each compiles for."""
        raise NotImplementedError

    def stamp(self, target: str) -> str:
        """Names sources and platform; the file carries it, so that one made of others is known."""
        digest = hashlib.sha256(f"{sys.byteorder} {_MACHINE} {_MUSL}".encode())
        for path in [*(path for pattern in self.patterns for path in sorted(RELAY.glob(pattern))), Path(__file__)]:
            digest.update(path.read_bytes())
        return f"mediaproxy sources {digest.hexdigest()} {target}"

    def target(self) -> str:
        """The platform that the file is for; empty: it is not there, or made of other sources."""
        if not self.output.exists():
            return ""
        found = re.search(re.escape(self.stamp("").encode()) + rb"(\w+)", self.output.read_bytes())
        return found[1].decode() if found else ""

    def fresh(self) -> bool:
        """Whether the file is there and made of these sources."""
        return bool(self.target())

    def build(self) -> None:
        """Compile it. OSError or subprocess.CalledProcessError if no compiler can."""
        failed: OSError | subprocess.CalledProcessError = OSError("no compiler")
        for target, command in self.commands():
            try:
                self._compile(target, command)
                return
            except (OSError, subprocess.CalledProcessError) as error:
                failed = error
        raise failed

    def _compile(self, target: str, command: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="mediaproxy-build-") as folder:
            made = Path(folder) / self.output.name
            command = [*command, f'-DSOURCES="{self.stamp(target)}"', str(self.source), "-o", str(made)]
            cache = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
            subprocess.run(
                command, check=True, env=os.environ | cache, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            beside = self.output.with_name(f"{os.getpid()}.{self.output.name}")
            beside.write_bytes(made.read_bytes())
            beside.replace(self.output)  # a relay that starts now reads the old file or the new one


class KernelProgram(Product):
    """The eBPF object; it is the same on every machine of one byte order."""

    _TARGET = "bpfel" if sys.byteorder == "little" else "bpfeb"
    _FLAGS = (
        "-mcpu=v3",
        "-O2",
        "-g",  # BTF
        "-Wall",
        "-Wextra",
        "-fno-asynchronous-unwind-tables",
        "-mllvm",
        "-no-stack-slot-sharing",  # without CAP_PERFMON the verifier lets no number overwrite a pointer on the stack
        "-c",
    )

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        own = os.environ.get("BPF_CLANG")
        if own:
            yield self._TARGET, [*shlex.split(own), "-target", self._TARGET, *self._FLAGS]
        else:
            yield self._TARGET, [*_zig(), "-target", f"{self._TARGET}-freestanding", *self._FLAGS]


class Extension(Product):
    """The extension of Python, for its stable ABI since 3.11."""

    _FLAGS = ("-O2", "-Wall", "-Wextra", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread")

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        include = Path(sysconfig.get_path("include"))
        flags = [*self._FLAGS, *([f"-I{include}"] if (include / "Python.h").exists() else [])]
        here = f"{'musllinux_1_2' if _MUSL else 'linux'}_{_MACHINE}"
        own = os.environ.get("BPF_CLANG")
        if own:
            yield here, [*shlex.split(own), *flags]
            return
        if _OLD_GLIBC:
            yield f"manylinux_2_17_{_MACHINE}", [*_zig(), "-target", f"{_MACHINE}-linux-gnu.2.17", *flags]
        yield here, [*shlex.split(os.environ.get("CC", "cc")), *flags]
        yield here, [*_zig(), *flags]


def _zig() -> list[str]:
    return [sys.executable, "-m", "ziglang", "cc"]


KERNEL = KernelProgram("relay.bpf.o", "relay.bpf.c", "the kernel program", "media will go through user space")
FASTPATH = Extension("fastpath.abi3.so", "fastpath.c", "the fast path", "media in user space will go through Python")
PRODUCTS = (KERNEL, FASTPATH)


class NativeHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and editable installs."""

    def dependencies(self) -> list[str]:
        """What pip installs into the build's environment."""
        fresh = all(product.fresh() for product in PRODUCTS)
        return [] if fresh or os.environ.get("BPF_CLANG") else [ZIGLANG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what is not up to date, and say for which platform the wheel is."""
        for product in PRODUCTS:
            if not product.fresh():
                self._build(product)
        target = FASTPATH.target()
        if target:
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{target}"

    def _build(self, product: Product) -> None:
        try:
            product.build()
        except (OSError, subprocess.CalledProcessError) as error:
            product.output.unlink(missing_ok=True)  # that of other sources
            said = (getattr(error, "stdout", None) or b"").decode(errors="replace").strip()
            self.app.display_warning(f"{product.what} is not built, {product.instead}: {error}\n{said}".rstrip())


if __name__ == "__main__":
    for one in PRODUCTS:
        one.build()

"""The build hook: compiles the kernel program when the wheel or the editable install is built.

Nothing binary is in the repository. The object is written beside its source, where an editable install finds it and
from where it goes into the wheel. The compiler is ``BPF_CLANG`` if that is set, else the clang inside ``ziglang``,
which pip downloads for the build alone, and only if there is something to compile. Where the program cannot be
compiled the installation succeeds all the same, with a warning: media then goes through user space.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
RELAY = HERE / "src" / "mediaproxy" / "relay"
SOURCE, OBJECT = RELAY / "relay.bpf.c", RELAY / "relay.bpf.o"

ZIGLANG = "ziglang>=0.17,<0.18"
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
)


def sources() -> list[Path]:
    """All that the object is made of."""
    return [*sorted(RELAY.glob("*.bpf.[ch]")), Path(__file__)]


def stamp() -> str:
    """Names the sources; the object carries it, so that one made of others is known."""
    digest = hashlib.sha256(_TARGET.encode())
    for path in sources():
        digest.update(path.read_bytes())
    return f"mediaproxy sources {digest.hexdigest()}"


def fresh() -> bool:
    """Whether the object is there and made of these sources."""
    return OBJECT.exists() and stamp().encode() in OBJECT.read_bytes()


def compiler() -> list[str]:
    """The command of the compiler with its target."""
    own = os.environ.get("BPF_CLANG")
    if own:
        return [*shlex.split(own), "-target", _TARGET]
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{_TARGET}-freestanding"]


def build() -> None:
    """Compile the object. OSError or subprocess.CalledProcessError if that cannot be done."""
    with tempfile.TemporaryDirectory(prefix="mediaproxy-build-") as folder:
        made = Path(folder) / OBJECT.name
        command = [*compiler(), *_FLAGS, f'-DSOURCES="{stamp()}"', "-c", str(SOURCE), "-o", str(made)]
        cache = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        subprocess.run(command, check=True, env=os.environ | cache, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        beside = OBJECT.with_name(f"{os.getpid()}.bpf.o")  # a relay that starts now reads the old file or the new one
        beside.write_bytes(made.read_bytes())
        beside.replace(OBJECT)


class NativeHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and editable installs."""

    def dependencies(self) -> list[str]:
        """What pip installs into the build's environment."""
        return [] if fresh() or os.environ.get("BPF_CLANG") else [ZIGLANG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the object is up to date."""
        if fresh():
            return
        try:
            build()
        except (OSError, subprocess.CalledProcessError) as error:
            OBJECT.unlink(missing_ok=True)  # that of other sources
            said = (getattr(error, "stdout", None) or b"").decode(errors="replace").strip()
            self.app.display_warning(
                f"the kernel program is not built, media will go through user space: {error}\n{said}".rstrip()
            )


if __name__ == "__main__":
    build()

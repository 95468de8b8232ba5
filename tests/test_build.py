"""The build hook: compiles when there is something to compile, and never keeps an installation from succeeding."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
_RELAY = Path("src") / "mediaproxy" / "relay"
_COMPILER = """#!/bin/sh
# Writes what it was asked to compile with: the last argument is the file.
for last; do :; done
echo "$@" > "$last"
"""
_NONE = "#!/bin/sh\necho 'no such target'\nexit 1\n"
_SMOKE = """
import mmap, os, sys
sys.path.insert(0, sys.argv[1])
import fastpath
room = mmap.mmap(-1, 128 * 4)
path = fastpath.Path(room, 1, os.eventfd(0, os.EFD_NONBLOCK), (1, 1), (1, 1), (1, 1))
path.set(1, 7, 2, bytes(184))
assert path.judge(1, 7, bytes(16), 1, b"x", 5) == (1, -1, b"", 0)
assert path.take(5) == [] and path.errors() == [] and len(fastpath.layout()) > 30
path.stop()
path.run(0)
for wrong in (lambda: path.free(4), lambda: path.set(1, 7, 2, b"")):
    try:
        wrong()
    except ValueError:
        continue
    raise SystemExit("no ValueError")
del path
print(fastpath.__doc__)
"""


class App:
    """What the hook tells the installation."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build_copy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """The hook on sources of its own."""
    (tmp_path / _RELAY).mkdir(parents=True)
    sources = [path for pattern in ("*.[ch]", "*.bpf.[ch]") for path in (ROOT / _RELAY).glob(pattern)]
    for path in [*sources, ROOT / "hatch_build.py"]:
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return loaded(tmp_path / "hatch_build.py")


def hook(build: Any) -> tuple[Any, App]:
    app = App()
    return build.NativeHook(str(build.HERE), {}, None, None, "", "wheel", app), app


def compiler(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "cc"
    path.write_text(text)
    path.chmod(0o755)
    monkeypatch.setenv("BPF_CLANG", str(path))


def fresh(build: Any) -> bool:
    return all(product.fresh() for product in build.PRODUCTS)


def test_the_compiler_is_downloaded_only_if_there_is_something_to_compile(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BPF_CLANG", raising=False)
    one, _ = hook(build)
    assert one.dependencies() == [build.ZIGLANG]
    compiler(tmp_path, _COMPILER, monkeypatch)
    assert one.dependencies() == []
    one.initialize("editable", {})
    monkeypatch.delenv("BPF_CLANG")
    assert one.dependencies() == []
    (tmp_path / _RELAY / "layout.bpf.h").write_text("/* changed */")
    assert not build.KERNEL.fresh() and not build.FASTPATH.fresh()
    assert one.dependencies() == [build.ZIGLANG]


def test_what_is_compiled_is_made_of_these_sources(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, _COMPILER, monkeypatch)
    one, app = hook(build)
    data: dict[str, Any] = {}
    one.initialize("standard", data)
    assert fresh(build)
    assert app.warnings == []
    assert "-target bpfe" in build.KERNEL.output.read_text()
    assert {path.name for path in build.RELAY.iterdir() if path.suffix in (".o", ".so")} == {
        "relay.bpf.o",
        "fastpath.abi3.so",
    }
    assert data["pure_python"] is False and data["tag"].startswith("cp311-abi3-") and "linux" in data["tag"]
    compiler(tmp_path, "#!/bin/sh\nexit 1\n", monkeypatch)
    again: dict[str, Any] = {}
    one.initialize("standard", again)
    assert app.warnings == [], "it was up to date"
    assert again == data


def test_a_source_of_one_is_none_of_the_other(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, _COMPILER, monkeypatch)
    hook(build)[0].initialize("editable", {})
    for name, kernel in (("fastpath.c", True), ("relay.bpf.c", False)):
        path = tmp_path / _RELAY / name
        text = path.read_text()
        path.write_text(text + "/* changed */")
        assert (build.KERNEL.fresh(), build.FASTPATH.fresh()) == (kernel, not kernel)
        path.write_text(text)


@pytest.mark.parametrize("text", [_NONE, "not a program"])
def test_an_installation_succeeds_without_a_compiler(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for product in build.PRODUCTS:
        product.output.write_text("of other sources")
    compiler(tmp_path, text, monkeypatch)
    one, app = hook(build)
    data: dict[str, Any] = {}
    one.initialize("editable", data)
    kernel, fast = app.warnings
    assert kernel.startswith("the kernel program is not built, media will go through user space")
    assert fast.startswith("the fast path is not built, media in user space will go through Python")
    assert not any(product.output.exists() for product in build.PRODUCTS)
    assert data == {}, "the wheel is for every platform"


@pytest.mark.skipif(shutil.which("cc") is None, reason="missing: cc")
@pytest.mark.parametrize("headers", [True, False], ids=["Python.h", "our own declarations"])
def test_the_extension_works_with_and_without_headers_of_python(
    build: Any, monkeypatch: pytest.MonkeyPatch, headers: bool
) -> None:
    """An interpreter without its headers is what Debian installs."""
    if headers and not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("missing: Python.h")
    if not headers:
        monkeypatch.setattr(build.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setenv("BPF_CLANG", "cc -Werror")
    build.FASTPATH.build()
    argv = [sys.executable, "-c", _SMOKE, str(build.RELAY)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == build.FASTPATH.stamp(build.FASTPATH.target())


def test_what_is_compiled_in_this_tree_is_up_to_date() -> None:
    """Else the tests try other programs than those that are here: ``make dev``."""
    module = loaded(ROOT / "hatch_build.py")
    for product in module.PRODUCTS:
        assert product.fresh(), product.output.name
        assert os.access(product.output, os.R_OK)

"""The build hook: compiles when there is something to compile, and never keeps an installation from succeeding."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
_RELAY = Path("src") / "mediaproxy" / "relay"
_COMPILER = """#!/bin/sh
# Writes what it was asked to compile with: the last argument is the object.
for last; do :; done
echo "$@" > "$last"
"""


class App:
    """What the hook tells the installation."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """The hook on sources of its own."""
    (tmp_path / _RELAY).mkdir(parents=True)
    for path in [*(ROOT / _RELAY).glob("*.bpf.[ch]"), ROOT / "hatch_build.py"]:
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    spec = importlib.util.spec_from_file_location("hatch_build_copy", tmp_path / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hook(build: Any) -> tuple[Any, App]:
    app = App()
    return build.NativeHook(str(build.HERE), {}, None, None, "", "wheel", app), app


def compiler(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "cc"
    path.write_text(text)
    path.chmod(0o755)
    monkeypatch.setenv("BPF_CLANG", str(path))


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
    (tmp_path / _RELAY / "relay.bpf.h").write_text("/* changed */")
    assert one.dependencies() == [build.ZIGLANG]


def test_the_object_is_made_of_these_sources(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, _COMPILER, monkeypatch)
    one, app = hook(build)
    one.initialize("standard", {})
    assert build.fresh()
    assert app.warnings == []
    assert "-target bpfe" in build.OBJECT.read_text()
    assert [path.name for path in build.RELAY.glob("*.o")] == ["relay.bpf.o"]
    compiler(tmp_path, "#!/bin/sh\nexit 1\n", monkeypatch)
    one.initialize("standard", {})
    assert app.warnings == [], "it was up to date"


@pytest.mark.parametrize("text", ["#!/bin/sh\necho 'no such target'\nexit 1\n", "not a program"])
def test_an_installation_succeeds_without_a_compiler(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    build.OBJECT.write_text("of other sources")
    compiler(tmp_path, text, monkeypatch)
    one, app = hook(build)
    one.initialize("editable", {})
    (warning,) = app.warnings
    assert warning.startswith("the kernel program is not built, media will go through user space")
    assert not build.OBJECT.exists()


def test_the_object_of_this_tree_is_up_to_date() -> None:
    """Else the tests try another program than the one that is here: ``make dev``."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.fresh()
    assert os.access(module.OBJECT, os.R_OK)

"""What the documents say works: configurations load, commands exist, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import inspect as types

from mediaproxy import config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """All fenced blocks of a language: (page and number, text)."""
    found = []
    for page in PAGES:
        texts = [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]
        found += [(f"{page.name} {number}", text) for number, text in enumerate(texts, 1)]
    return found


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("toml")])
def test_a_configuration_in_the_documents_is_valid(text: str) -> None:
    config.loads(text, "docs", ROOT)


def _settings(kind: types.Type, path: tuple[str, ...] = ()) -> set[str]:
    """Every key of the configuration, lists of tables without their positions."""
    match kind:
        case types.StructType():
            found = [(field, (*path, field.encode_name)) for field in kind.fields]
            return {".".join(inner) for _, inner in found}.union(*(_settings(field.type, p) for field, p in found))
        case types.VarTupleType():
            return _settings(kind.item_type, path)
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_setting_in_the_documents_exists(page: Path) -> None:
    known = _settings(types.type_info(config.Config))
    tables = "|".join(sorted({name.partition(".")[0] for name in known}))
    named = re.findall(rf"`((?:{tables})(?:\.[a-z_0-9]+)+)(?: = [^`]*)?`", page.read_text())
    files = ("bpf.c", "bpf.h", ".py", ".sock", ".jsonl", ".com")
    assert not {name for name in named if not name.endswith(files)} - known


def _commands() -> list[str]:
    lines = {line for kind in ("sh", "console") for _, text in blocks(kind) for line in text.splitlines()}
    calls = (re.search(r"(?:bin/|^[$#] |^)mediaproxy ([a-z]+)((?: +[^#|>]+)?)", line) for line in lines)
    return sorted({f"{call[1]}{call[2].rstrip()}" for call in calls if call})


def test_the_documents_show_every_command() -> None:
    shown = {line.split()[0] for line in _commands()} | {"end"}  # shown in running text
    assert shown >= {"run", "calls", "end", "registrations", "records", "config", "explain"}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("sh")])
def test_a_server_is_started_with_the_file_that_was_checked(text: str) -> None:
    (checked, started) = (re.findall(rf"mediaproxy {what} +(\S+)", text) for what in ("config --check", "run --config"))
    assert not checked or started == checked


@pytest.mark.parametrize("line", _commands())
def test_a_command_in_the_documents_exists_with_its_options(line: str) -> None:
    name, *words = line.split()
    shown = subprocess.run(
        [sys.executable, "-m", "mediaproxy", name, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.stdout


def test_the_message_in_the_documents_can_be_explained() -> None:
    (line,) = [line for _, text in blocks("console") for line in text.splitlines() if line.startswith("$ mediaproxy")]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line.removeprefix("$ "))],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "behind" in done.stdout and "m=audio 60000 " in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_make_target_in_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make (\w+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"

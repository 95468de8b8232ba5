"""Files that change while they are watched: real files, every way of changing and losing them, virtual time."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mediaproxy import watch
from mediaproxy.agents import SIP_ASYMMETRICS
from mediaproxy.watch import LARGEST, AgentFile, AsymmetricClients, WatchedFile

WHAT = "list"


class Watcher:
    """A watched file, what was said about it, and the time. A file changed by a test was changed long ago, unless
    ``age`` says otherwise."""

    def __init__(self, path: Path, *, optional: bool = False, age: float = 3600.0) -> None:
        self.bad: list[str] = []
        self.news: list[str] = []
        self.age = age
        self.now = 1000.0
        self.file = WatchedFile(
            path,
            self.bad.append,
            what=WHAT,
            notice=self.news.append,
            optional=optional,
            wall=lambda: time.time() + self.age,
        )

    def look(self) -> bytes | None:
        """A second later."""
        self.now += 1.0
        return self.file.refresh(self.now)

    def within(self, seconds: int = 4) -> bytes | None:
        """What comes in the next seconds; None: nothing."""
        found = [data for _ in range(seconds) if (data := self.look()) is not None]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_bytes(b"one\n")
    return path


def times_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_atime_ns, status.st_mtime_ns


def edited_in_place(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.write(b"two\n")
    return b"two\n"


def appended(path: Path) -> bytes:
    with path.open("ab") as file:
        file.write(b"two\n")
    return b"one\ntwo\n"


def emptied(path: Path) -> bytes:
    os.truncate(path, 0)
    return b""


def replaced(path: Path) -> bytes:
    new = path.with_name("new")
    new.write_bytes(b"two\n")
    new.replace(path)
    return b"two\n"


def replaced_by_an_older_one(path: Path) -> bytes:
    new = path.with_name("new")
    new.write_bytes(b"two\n")
    os.utime(new, (1_000_000, 1_000_000))
    new.replace(path)
    return b"two\n"


def restored_with_its_old_time(path: Path) -> bytes:
    path.write_bytes(b"two\n")
    os.utime(path, (1_000_000, 1_000_000))
    return b"two\n"


def same_size_and_time(path: Path) -> bytes:
    times = times_of(path)
    path.write_bytes(b"two\n")
    os.utime(path, ns=times)
    return b"two\n"


def replaced_with_same_size_and_time(path: Path) -> bytes:
    times = times_of(path)
    replaced(path)
    os.utime(path, ns=times)
    return b"two\n"


def replaced_by_a_link(path: Path) -> bytes:
    path.with_name("elsewhere").write_bytes(b"two\n")
    path.unlink()
    path.symlink_to("elsewhere")
    return b"two\n"


CHANGES = [
    edited_in_place,
    appended,
    emptied,
    replaced,
    replaced_by_an_older_one,
    restored_with_its_old_time,
    same_size_and_time,
    replaced_with_same_size_and_time,
    replaced_by_a_link,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("age", [3600.0, 0.0], ids=["long-ago", "just-now"])
def test_a_change_is_noticed_however_it_was_made(change: Callable[[Path], bytes], age: float, path: Path) -> None:
    watcher = Watcher(path, age=age)
    assert watcher.look() == b"one\n", "what is there at the start is read at once"
    assert watcher.within() is None
    assert watcher.within() is None
    new = change(path)
    assert watcher.within() == new
    assert watcher.within() is None
    assert watcher.bad == watcher.news == []


def test_the_target_of_a_link_is_watched(path: Path) -> None:
    link, other = path.with_name("link"), path.with_name("other")
    other.write_bytes(b"other\n")
    link.symlink_to(path)
    watcher = Watcher(link)
    assert watcher.look() == b"one\n"
    path.write_bytes(b"two\n")
    assert watcher.look() == b"two\n"
    spare = path.with_name("spare")
    spare.symlink_to(other)
    spare.replace(link)
    assert watcher.look() == b"other\n"


def test_another_time_alone_is_no_change(path: Path) -> None:
    watcher = Watcher(path)
    assert watcher.look() == b"one\n"
    os.utime(path)
    assert watcher.within() is None


def test_it_is_not_looked_at_more_often_than_needed(path: Path) -> None:
    watcher = Watcher(path)
    assert watcher.file.refresh(5.0) == b"one\n"
    path.write_bytes(b"two\n")
    assert watcher.file.refresh(5.1) is None
    assert watcher.file.refresh(5.6) == b"two\n"


# What cannot be read


def missing(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def too_large(path: Path) -> None:
    os.truncate(path, LARGEST + 1)


def closed(path: Path) -> None:
    path.chmod(0)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Somebody whom permissions stop: root they do not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


TROUBLES = [
    (missing, "No such file or directory"),
    (directory, "it is a directory"),
    (pipe, "it is no regular file"),
    (link_to_a_device, "it is no regular file"),
    (link_to_nothing, "No such file or directory"),
    (link_to_itself, "Too many levels of symbolic links"),
    (too_large, "it is larger than 1048576 bytes"),
    (closed, "Permission denied"),
]


@pytest.mark.parametrize(("lose", "why"), TROUBLES, ids=[lose.__name__ for lose, _ in TROUBLES])
def test_what_cannot_be_read_is_told_once_and_changes_nothing(
    lose: Callable[[Path], None], why: str, path: Path
) -> None:
    watcher = Watcher(path)
    assert watcher.look() == b"one\n"
    lose(path)
    with nobody() if lose is closed else contextlib.nullcontext():
        begin = time.monotonic()
        assert watcher.within(20) is None
        assert time.monotonic() - begin < 10, "it waited for something"
    assert watcher.bad == [f"{path}: the {WHAT} cannot be read: {why}; the last good one stays in force"]
    assert watcher.file.trouble == why
    good = path.with_name("good")
    good.write_bytes(b"two\n")
    if path.is_dir():
        path.rmdir()
    good.replace(path)
    assert watcher.within() == b"two\n"
    assert watcher.news == [f"{path}: the {WHAT} can be read again"]
    assert watcher.file.trouble == ""
    lose(path)
    with nobody() if lose is closed else contextlib.nullcontext():
        assert watcher.within() is None
    assert len(watcher.bad) == 2, "a second time is told again"


def test_one_that_comes_back_unchanged_is_told(path: Path) -> None:
    watcher = Watcher(path)
    assert watcher.look() == b"one\n"
    away = path.rename(path.with_name("away"))
    assert watcher.within() is None
    away.rename(path)
    assert watcher.within() is None
    assert watcher.news == [f"{path}: the {WHAT} can be read again"]


def test_one_that_was_never_there(path: Path) -> None:
    path.unlink()
    watcher = Watcher(path)
    assert watcher.within(10) is None
    assert watcher.bad == [
        f"{path}: the {WHAT} cannot be read: No such file or directory; none is in force until it can be"
    ]
    path.write_bytes(b"one\n")
    assert watcher.within() == b"one\n"


def test_one_that_need_not_be_there(path: Path) -> None:
    path.unlink()
    watcher = Watcher(path, optional=True)
    assert watcher.within(10) is None
    assert watcher.news == [f"{path}: there is no {WHAT}; none is in force"]
    assert watcher.bad == []
    path.write_bytes(b"one\n")
    assert watcher.within() == b"one\n"
    path.unlink()
    assert watcher.within(10) is None
    assert watcher.bad == [
        f"{path}: the {WHAT} cannot be read: No such file or directory; the last good one stays in force"
    ]


def test_a_path_that_no_file_can_have() -> None:
    watcher = Watcher(Path("a\0b"))
    assert watcher.within(10) is None
    assert len(watcher.bad) == 1


# Writers at work


def test_a_file_that_is_just_being_written_is_left_alone(path: Path) -> None:
    watcher = Watcher(path)
    assert watcher.look() == b"one\n"
    watcher.age = 0.0
    with path.open("wb") as file:
        assert watcher.look() is None, "emptied, and not yet written"
        file.write(b"two\nthr")
        file.flush()
        assert watcher.look() is None
        file.write(b"ee\n")
    watcher.age = 2.0
    assert watcher.look() == b"two\nthree\n"


def test_one_that_is_always_being_written_is_read_all_the_same(path: Path) -> None:
    watcher = Watcher(path, age=0.0)
    assert watcher.look() == b"one\n"
    found: list[bytes] = []
    for number in range(10):
        with path.open("ab") as file:
            file.write(f"{number}\n".encode())
        data = watcher.look()
        found += [data] if data is not None else []
    assert len(found) >= 2
    assert b"2\n" in found[0]


def test_a_change_within_one_tick_of_the_clock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose times are so coarse that the second of two changes leaves no trace."""
    second = path.stat().st_ctime_ns
    monkeypatch.setattr(watch, "_mark", lambda status: (0, 0, status.st_size, second, second))
    watcher = Watcher(path, age=0.0)
    assert watcher.look() == b"one\n"
    path.write_bytes(b"two\n")
    assert watcher.within() == b"two\n"


def test_while_others_replace_it_all_the_time(path: Path) -> None:
    contents = [bytes([65 + number]) * 50_000 for number in range(5)]
    path.write_bytes(contents[0])
    done = threading.Event()

    def replace() -> None:
        for turn in range(200):
            new = path.with_name("new")
            new.write_bytes(contents[turn % 5])
            new.replace(path)
        done.set()

    watcher = Watcher(path)
    thread = threading.Thread(target=replace)
    thread.start()
    found = []
    while not done.is_set():
        found.append(watcher.look())
    thread.join()
    assert {data for data in found if data is not None} <= set(contents)
    assert watcher.bad == []


# Lists


def agent_file(path: Path, said: list[str]) -> AgentFile:
    return AgentFile(path, said.append, what="list of phones")


def test_a_list_that_changes(path: Path) -> None:
    said: list[str] = []
    file = agent_file(path, said)
    assert file.refresh(0.0)
    assert file.agents.matches("phone one")
    path.write_bytes(b"# comment\n\n  two  \n(bad\n[[:alpha:]]x\n")
    assert any([file.refresh(second) for second in (1.0, 2.0, 3.0, 4.0)])
    assert (file.agents.patterns, file.agents.matches("TWO")) == (("two", "[[:alpha:]]x"), True)
    assert said == [
        f"{path}: 1 entry in the list of phones",
        f"{path}, line 4: '(bad' is skipped: missing )",
        f"{path}: 2 entries in the list of phones",
    ]
    path.unlink()
    assert not any(file.refresh(second) for second in (5.0, 6.0, 7.0))
    assert file.agents.matches("TWO")
    assert len(said) == 4


def test_a_comment_more_is_no_other_list(path: Path) -> None:
    said: list[str] = []
    file = agent_file(path, said)
    assert file.refresh(0.0)
    path.write_bytes(b"# more\none\n")
    assert not any([file.refresh(second) for second in (1.0, 2.0, 3.0, 4.0)])
    assert len(said) == 2


@pytest.mark.parametrize(
    ("data", "patterns", "lines"),
    [
        pytest.param(b"\0" * 100_000, (), 2, id="zeros-of-a-lost-file"),
        pytest.param(b"good\n\0bad\nbetter", ("good", "better"), 2, id="nul-byte"),
        pytest.param(b"(\n" * 500_000, (), 22, id="thousands-of-bad-lines"),
        pytest.param(bytes(range(256)), None, 3, id="any-byte"),
        pytest.param(b"", (), 1, id="empty"),
        pytest.param(b"a\r\nb\r\n", ("a", "b"), 1, id="line-ends-of-dos"),
        pytest.param("\ufeffa\ncaf\xe9".encode(), ("a", "caf\xc3\xa9"), 1, id="utf-8"),
    ],
)
def test_any_content(data: bytes, patterns: tuple[str, ...] | None, lines: int, path: Path) -> None:
    path.write_bytes(data)
    said: list[str] = []
    file = agent_file(path, said)
    file.refresh(0.0)
    assert patterns is None or file.agents.patterns == patterns
    assert len(said) == lines
    assert max(len(line) for line in said) < 600
    assert all("\n" not in line and "\0" not in line for line in said)


def test_both_lists(tmp_path: Path) -> None:
    sip, rtp = tmp_path / "sip", tmp_path / "rtp"
    sip.write_text("ipDialog SipTone.*\n")
    rtp.write_text("# none\n")
    said: list[str] = []
    clients = AsymmetricClients(str(sip), str(rtp), said.append)
    assert not clients.sip
    assert clients.refresh(0.0)
    assert clients.sip.matches("ipDialog SipTone II")
    assert not clients.rtp.matches("ipDialog SipTone II")
    assert said == [
        f"{sip}: 1 entry in the list of SIP-asymmetric clients",
        f"{rtp}: 0 entries in the list of RTP-asymmetric clients",
    ]
    rtp.write_text("x")
    sip.write_text("y")
    assert any([clients.refresh(second) for second in (1.0, 2.0, 3.0, 4.0)])
    assert (clients.sip.patterns, clients.rtp.patterns) == (("y",), ("x",))


def test_no_lists() -> None:
    said: list[str] = []
    clients = AsymmetricClients("", "", said.append)
    assert not clients.refresh(0.0)
    assert not clients.sip.matches("x")
    assert not clients.rtp.matches("x")
    assert said == []


def test_a_list_that_is_missing_in_the_default_place_is_no_mistake() -> None:
    assert not Path(SIP_ASYMMETRICS).exists(), "this host has the original's lists"
    bad: list[str] = []
    news: list[str] = []
    clients = AsymmetricClients(SIP_ASYMMETRICS, "/no/such/list", bad.append, news.append)
    assert not clients.refresh(0.0)
    assert not clients.refresh(1.0)
    assert news == [f"{SIP_ASYMMETRICS}: there is no list of SIP-asymmetric clients; none is in force"]
    assert bad == [
        "/no/such/list: the list of RTP-asymmetric clients cannot be read: No such file or directory;"
        " none is in force until it can be"
    ]

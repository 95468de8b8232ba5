"""What every asynchronous test shares: the event loops it runs in, and a check that it leaves nothing behind."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: run in the event loop of asyncio and in that of uvloop")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops of a test: plain asyncio, and uvloop too for tests marked ``both_loops``."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


def _open_files() -> Counter[str]:
    """How many of each kind of file are open: ``socket``, ``pipe``, ``anon_inode`` or a path."""
    kinds: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            what = os.readlink(f"/proc/self/fd/{name}")
            kinds[what if what.startswith("/") else what.partition(":")[0]] += 1
    return kinds


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves a task, a socket or any other open file behind."""
    before = _open_files()
    yield
    for _ in range(3):  # transports close in the loop's next turns
        await asyncio.sleep(0)
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
    assert not tasks, f"tasks left running: {tasks}"
    left = _open_files() - before
    del left["/dev/null"]  # libuv's reserve for the day when descriptors run out
    assert not left, f"files left open: {left}"

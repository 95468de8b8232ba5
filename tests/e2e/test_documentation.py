"""Every sentence of §1.3 to 1.8 of the original module's documentation, tried with the built-in edge and with Kamailio.

The table is in tests/documentation. All is on loopback; nothing but Kamailio is needed, and root: the defaults, such as
/etc/openser, are tried in a view of the file system of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from lab.hosts import Host
from lab.kamailio import VENV
from tests.documentation import (
    section13,
    section14,
    section15,
    section17,
    section18,
    section154,
    section161,
    section163,
)
from tests.documentation.estate import Estate
from tests.documentation.house import House, new_address
from tests.documentation.row import Row, Section
from tests.e2e.conftest import need

SECTIONS = (
    section13.SECTION,
    section14.SECTION,
    *section15.SECTIONS,
    section154.SECTION,
    *section161.SECTIONS,
    *section163.SECTIONS,
    section17.SECTION,
    section18.SECTION,
)
ROWS = [
    pytest.param(row, id=f"{section.title.split()[0]}-{row.number}")
    for late in (False, True)
    for section in SECTIONS
    for row in section.rows
    if row.late is late
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_no_sentence_is_forgotten(section: Section) -> None:
    assert [row.number for row in section.rows] == list(range(1, section.sentences + 1))
    assert all(row.gist for row in section.rows)
    assert all(otherwise.why for row in section.rows for otherwise in row.but.values())


def test_no_section_is_forgotten() -> None:
    assert [section.title.split()[0] for section in SECTIONS] == [
        *("1.3", "1.4", "1.5.1", "1.5.2", "1.5.3", "1.5.4", "1.6.1", "1.6.2", "1.6.3", "1.6.4", "1.7", "1.8"),
    ]


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Estate]]:
    """The relays that both hosts use."""
    with ExitStack() as stack:

        @cache
        def started() -> Estate:
            addresses = [new_address() for _ in range(6)]
            return stack.enter_context(Estate(tmp_path_factory.mktemp("estate"), addresses))

        yield started


@pytest.fixture(scope="module", params=[Host.EDGE, Host.KAMAILIO])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, estate: Callable[[], Estate]
) -> Iterator[House]:
    """One host, for all rows; then the other one."""
    if request.param is Host.KAMAILIO:
        need("kamailio", str(VENV / "bin" / "python3"))
    with ExitStack() as stack:
        one = House(request.param, tmp_path_factory.mktemp("host") / "house", estate)
        stack.callback(one.close)
        yield one
        one.check()


@pytest.mark.parametrize("row", ROWS)
def test_a_sentence_is_true(house: House, row: Row) -> None:
    for _ in range(row.tries):
        with house.row():
            found = row.case(house)
        if found == row.expected(house.host):
            break
    assert found == row.expected(house.host), row.gist

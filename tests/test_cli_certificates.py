"""Certificates that a configuration names: what ``mediaproxy config --check`` says of them."""

from pathlib import Path

import pytest

from mediaproxy.cli.certificates import unusable
from mediaproxy.config import loads
from tests.certificates import Authority

DOOR = '[[listen]]\nprotocol = "ng"\naddress = "tls://127.0.0.1"\n'
RELAY = '[relay.listen]\naddress = "tls://127.0.0.1:25060"\n'
EDGE = "[edge.tls]\n"
DISPATCHER = "[dispatcher.tls]\n"
GOOD = 'certificate = "server.pem"\nauthorities = "ca.pem"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority(tmp_path)
    (tmp_path / "text.pem").write_text("no certificate\n")
    return tmp_path


@pytest.mark.parametrize("table", [DOOR, RELAY, EDGE, DISPATCHER])
def test_good_ones(table: str, folder: Path) -> None:
    assert list(unusable(loads(table + GOOD, directory=folder))) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DOOR + 'certificate = "none.pem"\n', "listen[0]: {0}/none.pem: No such file or directory"),
        (DOOR + 'certificate = "server.pem"\nkey = "none.pem"\n', "listen[0]: {0}/none.pem: No such file or directory"),
        (DOOR + 'certificate = "server.pem"\nauthorities = "none.pem"\n', "listen[0]: {0}/none.pem: No such file or d"),
        (DOOR + 'certificate = "text.pem"\n', "listen[0]: {0}/text.pem: no certificate with its key, as PEM"),
        (DOOR + 'certificate = "ca.pem"\n', "listen[0]: {0}/ca.pem: no certificate with its key, as PEM"),
        (RELAY + 'certificate = "none.pem"\nauthorities = "ca.pem"\n', "relay.listen: {0}/none.pem: No such file"),
        (
            DISPATCHER + 'certificate = "server.pem"\nauthorities = "text.pem"\n',
            "dispatcher.tls: {0}/text.pem: no cert",
        ),
        (EDGE + 'certificate = "none.pem"\n', "edge.tls: {0}/none.pem: No such file or directory"),
        (EDGE + 'certificate = "text.pem"\n', "edge.tls: no certificate with its key, as PEM"),
    ],
)
def test_others(text: str, says: str, folder: Path) -> None:
    (line,) = unusable(loads(text, directory=folder))
    assert line.startswith(says.format(folder))


def test_what_is_not_used_is_not_read(folder: Path) -> None:
    text = 'edge.enabled = false\nedge.tls.certificate = "none.pem"\n'
    assert list(unusable(loads(text, directory=folder))) == []

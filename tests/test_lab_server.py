"""The laboratory writes settings as TOML that means the same."""

import tomllib
from typing import Any

import pytest

from lab.server import document, merge


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"runtime_dir": '/tmp/a "b"\\c', "relay": {"port_min": 20000, "silence": 1.5}}, id="scalars"),
        pytest.param({"edge": {"open": True, "domains": ["sip.test"], "tls": {"key": "k.pem"}}}, id="nested"),
        pytest.param({"edge": {"listeners": [{"bind": "[::1]:5060"}, {"transport": "tcp"}]}}, id="list of tables"),
    ],
)
def test_documents_mean_what_they_were_made_of(settings: dict[str, Any]) -> None:
    assert tomllib.loads(document(settings)) == settings


def test_changes_go_on_top_table_by_table() -> None:
    merged = merge({"edge": {"open": True, "media": True}, "log": 1}, {"edge": {"media": False}, "relay": {}})
    assert merged == {"edge": {"open": True, "media": False}, "log": 1, "relay": {}}

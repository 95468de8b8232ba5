"""The configuration: the printed default is the default, and every mistake is named with file, line, key and remedy."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect as types

from mediaproxy.config import Config, ConfigError, clients_of, default_text, load, loads
from mediaproxy.config.formerly import _HERE
from mediaproxy.config.lines import line_numbers, line_of
from mediaproxy.config.template import field_docs, toml
from mediaproxy.edge.settings import Limits, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.sip.digest import Algorithm


def structs(kind: types.Type, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], types.StructType]]:
    """Every settings struct with the path of its table."""
    match kind:
        case types.StructType() if kind.cls is not Endpoint:
            inner = [one for field in kind.fields for one in structs(field.type, (*path, field.encode_name))]
            return [(path, kind), *inner]
        case types.VarTupleType():
            return structs(kind.item_type, path)
    return []


EVERY = structs(types.type_info(Config))


def test_the_printed_default_is_the_default() -> None:
    assert loads(default_text()) == Config()


def test_the_printed_values_are_the_default_values() -> None:
    uncommented = re.sub(r"(?m)^#(?! )", "", default_text())
    assert uncommented != default_text()
    assert loads(uncommented) == Config()


@pytest.mark.parametrize(("path", "kind"), EVERY, ids=[".".join(path) or "top" for path, _ in EVERY])
def test_every_key_is_printed_and_explained(path: tuple[str, ...], kind: types.StructType) -> None:
    text = default_text()
    docs = field_docs(kind.cls)
    header = re.escape(".".join(path))
    section = (
        re.search(rf"(?ms)^(?:#   )?\[\[?{header}\]\]?$(.*?)(?=^\[|\Z)", text) if path else re.match(r"(?s).*", text)
    )
    assert section is not None
    for field in kind.fields:
        if not structs(field.type):
            assert re.search(rf"(?m)^#(?:   )?{field.encode_name} = ", section[0]), field.name
            assert docs.get(field.name) or field.name == "transport", f"{field.name} has no text under it"


def test_the_examples_fit() -> None:
    example = re.sub(r"(?m)^#   ", "", default_text()).replace("ha1 = {", "#ha1 = {")
    config = loads(example)
    assert config.edge.listeners[0] == Listener(
        transport=Transport.UDP, bind=Endpoint("192.0.2.1", 5060), advertise=Endpoint("203.0.113.1", 5060)
    )
    assert config.edge.accounts[0].username == "alice"
    assert config.relay.addresses == (RelayAddress(bind="192.0.2.1", advertise="203.0.113.1", name="external"),)
    assert config.relay.tos == 184


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("# ours\n^toy/\n")
    file = tmp_path / "mediaproxy.toml"
    file.write_text(
        """
        log.format = "json"
        [edge]
        domains = ["example.com"]
        realm = "example.com"
        natping_interval = 30
        sip_asymmetrics = "agents"
        rtp_asymmetrics = ""
        sipping_from = "sip:ping@example.com"
        listeners = [{ transport = "tls", bind = "[2001:db8::1]:5061" }]
        accounts = [{ username = "bob", ha1 = { "MD5" = "0123456789abcdef0123456789ABCDEF" } }]
        [[edge.accounts]]
        username = "alice"
        password = "secret"
        """.replace("accounts = [{ u", "# accounts = [{ u")
    )
    config = load(file)
    assert config.log.format == "json"
    assert config.edge.natping_interval == 30.0
    assert config.edge.listeners == (Listener(transport=Transport.TLS, bind=Endpoint("2001:db8::1", 5061)),)
    assert (config.edge.sip_asymmetrics, config.edge.rtp_asymmetrics) == (f"{tmp_path}/agents", "")
    assert clients_of(config.edge, pytest.fail).sip.matches("toy/1.0")
    assert config.edge.limits == Limits()
    assert [a.username for a in config.edge.accounts] == ["alice"]


def test_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mediaproxy.toml"
    file.write_text('runtime_dir = "run"\nstate_dir = "/var/x"\nrecords.path = "calls"\nedge.tls.certificate = "c.pem"')
    config = load(file)
    assert (config.runtime_dir, config.state_dir) == (f"{tmp_path}/run", "/var/x")
    assert (config.records.path, config.edge.tls.certificate) == (f"{tmp_path}/calls", f"{tmp_path}/c.pem")
    assert config.edge.tls.key == ""


def test_ha1() -> None:
    config = loads(
        'edge.realm = "x"\nedge.accounts = [{ username = "a", ha1.MD5 = "0123456789abcdef0123456789ABCDEF" }]'
    )
    assert config.edge.accounts[0].ha1 == {Algorithm.MD5: "0123456789abcdef0123456789ABCDEF"}


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        pytest.param(
            "[edge]\n\nopne = true", ["line 3: edge.opne: no such key; did you mean open?"], id="unknown key, near"
        ),
        pytest.param(
            '[relay]\nport_range = "1:2"\nsilent-timeout = 3\n[ng]\ntimeout = 3',
            [
                "line 2: relay.port_range: no such key; what others call so is relay.port_min and relay.port_max here",
                "line 3: relay.silent-timeout: no such key; what others call so is relay.hold here",
                "line 5: ng.timeout: no such key; what others call so is relay.silence here",
            ],
            id="name of another program",
        ),
        pytest.param("colour = 1", ["line 1: colour: no such key; there are: runtime_dir, state_dir, "], id="unknown"),
        pytest.param("edge.open = 3", ["line 1: edge.open: expected true or false, got 3"], id="bool"),
        pytest.param(
            "[edge.limits]\ncontacts = 0",
            ["line 2: edge.limits.contacts: expected a whole number from 1 to 1000, got 0"],
            id="range",
        ),
        pytest.param("edge.nat_tests = true", ["line 1: edge.nat_tests: expected a whole number from 0"], id="int"),
        pytest.param(
            'relay.hold = "1h"', ['line 1: relay.hold: expected a number from 0 to 1000000, got "1h"'], id="float"
        ),
        pytest.param(
            "relay.hold = nan", ["line 1: relay.hold: expected a number from 0 to 1000000, got nan"], id="nan"
        ),
        pytest.param("edge.realm = 1", ["line 1: edge.realm: expected a text in quotes, got 1"], id="str"),
        pytest.param(
            'edge.domains = "a"', ['line 1: edge.domains: expected a list of texts ["...", "..."], got "a"'], id="list"
        ),
        pytest.param("edge = []", ["line 1: edge: expected a table, got a list"], id="table"),
        pytest.param(
            "relay.addresses = [" + 9 * '{ bind = "::2" },' + "]",
            ["line 1: relay.addresses: expected at most 8, got 9"],
            id="many",
        ),
        pytest.param("edge.algorithms = []", ["line 1: edge.algorithms: expected at least 1, got 0"], id="few"),
        pytest.param(
            'log.level = "inof"',
            ['line 1: log.level: expected one of "debug", "info", "warning", "error", got "inof"; did you mean info?'],
            id="enum",
        ),
        pytest.param(
            'relay.latch_others = "probatoin"',
            ['expected one of "never", "probation", got "probatoin"; did you mean probation?'],
            id="literal",
        ),
        pytest.param('admin.mode = "rw"', ["line 1: admin.mode: expected permissions in octal"], id="pattern"),
        pytest.param(
            '[[edge.listeners]]\ntransport = "udp"\nbind = "192.0.2.1:5060"\n[[edge.listeners]]\ntransport = "udp"\n'
            'bind = "192.0.2.1"\nadvertise = 5060',
            [
                "line 6: edge.listeners[1].bind: expected ADDRESS:PORT in quotes, such as",
                "line 7: edge.listeners[1].advertise: expected ADDRESS:PORT in quotes",
            ],
            id="endpoint, second of a list",
        ),
        pytest.param(
            '[[edge.listeners]]\ntransport = "udp"',
            ["line 1: edge.listeners[0]: the key bind is missing"],
            id="missing",
        ),
        pytest.param(
            "relay.port_min = 20000\nrelay.port_max = 19000",
            ["line 2: relay.port_max: port_min 20000 to port_max 19000 holds no even port"],
            id="two that do not fit",
        ),
        pytest.param(
            'relay.routable = ["x"]',
            ["line 1: relay.routable: expected prefixes such as \"10.0.0.0/8\": 'x' does"],
            id="prefix",
        ),
        pytest.param(
            'edge.trusted_proxies = ["a"]', ["edge.trusted_proxies[0]: expected an address or a prefix"], id="proxy"
        ),
        pytest.param(
            "edge.expiry.minimum = 7000", ["line 1: edge.expiry: expected minimum <= default <= maximum"], id="expiry"
        ),
        pytest.param(
            'edge.accounts = [{ username = "a" }, { username = "b@c", password = "x" }]',
            [
                "edge.accounts[0]: expected either password or ha1 for a",
                "edge.accounts[1].username: expected a user part",
            ],
            id="accounts",
        ),
        pytest.param(
            'edge.accounts = [{username="a", password="x"}, {username="a", password="x"}]',
            ["edge.accounts[1]: a has an account already"],
            id="account twice",
        ),
        pytest.param(
            'edge.accounts = [{ username = "a", ha1 = { "MD5" = "1234", "SHA-1" = "" } }]',
            ['edge.accounts[0].ha1.SHA-1: expected one of "MD5", "SHA-256", "SHA-512-256", got "SHA-1"; did you mean'],
            id="ha1 algorithm",
        ),
        pytest.param(
            'edge.accounts = [{ username = "a", ha1 = { "MD5" = "1234" } }]\nedge.algorithms = ["SHA-256", "MD5"]',
            [
                "edge.accounts[0].ha1.MD5: expected 32 hexadecimal digits",
                "ha1: a hash is only good for one realm",
                "ha1: expected a hash for SHA-256 too, which edge.algorithms offers",
            ],
            id="ha1",
        ),
        pytest.param("edge.sip_asymmetrics = 3", ["edge.sip_asymmetrics: expected a text in quotes"], id="list"),
        pytest.param("edge.nat_flag = 32", ["edge.nat_flag: expected a whole number from 0 to 31, got 32"], id="flag"),
        pytest.param(
            'edge.sipping_from = "tel:+49"',
            ["edge.sipping_from: expected a SIP URI such as \"sip:ping@example.com\", got 'tel:+49'"],
            id="ping from",
        ),
        pytest.param(
            'edge.sipping_from = "sip:ping@example.com\\r\\nX: y"',
            ["edge.sipping_from: expected a SIP URI"],
            id="ping from two lines",
        ),
        pytest.param(
            'edge.sipping_from = "sip:p\u00fcng@example.com"', ["edge.sipping_from: expected a SIP URI"], id="not ASCII"
        ),
        pytest.param(
            'edge.sipping_method = "INVITE"',
            ["edge.sipping_method: expected a method that changes nothing, such as OPTIONS or NOTIFY, got INVITE"],
            id="ping that rings",
        ),
        pytest.param(
            'edge.sipping_method = "OP TIONS"', ["edge.sipping_method: expected a text in quotes that"], id="no method"
        ),
        pytest.param(
            "edge.sipping_max_lost = 0",
            ["edge.sipping_max_lost: expected a whole number from 1 to 1000, got 0"],
            id="lost",
        ),
        pytest.param(
            "[edge]\nopen = tru",
            ["line 2, column 8: not TOML: Invalid value; expected true, false, a num"],
            id="syntax",
        ),
        pytest.param(
            "[edge]\nopen = true\nopen = true\n",
            ["line 3, column 12: not TOML: Cannot overwrite a value; the key is there already"],
            id="twice",
        ),
        pytest.param(
            'relay.addresses = ["192.0.2.1", { name = "a" }]',
            [
                'line 1: relay.addresses[0]: expected a table { bind = ... }, got "192.0.2.1"',
                "line 1: relay.addresses[1]: the key bind is missing",
            ],
            id="no table",
        ),
        pytest.param(
            'relay.addresses = "192.0.2.1"',
            ['relay.addresses: expected a list of tables [{ bind = ... }], got "192.0.2.1"'],
            id="no list of tables",
        ),
        pytest.param(
            '\n[edge.accounts]\nusername = "a"',
            ["line 2: edge.accounts: expected a list of tables [{ username = ... }], each with a header [[edge.acc"],
            id="header of a table",
        ),
        pytest.param(
            "\n[[listeners]]\n", ["line 2: listeners: no such key; did you mean listen?"], id="unknown list of tables"
        ),
        pytest.param(
            'relay.addresses = [{ bind = "192.0.2.1/24" }]',
            ["line 1: relay.addresses[0].bind: expected an IP address such as 192.0.2.1, alone, got '192.0.2.1/24'"],
            id="prefix for an address",
        ),
        pytest.param(
            'relay.addresses = [{ bind = "2001:DB8::1" }]',
            ["relay.addresses[0].bind: '2001:DB8::1' is not in its usual form; expected '2001:db8::1'"],
            id="form of an address",
        ),
        pytest.param("edge = [", ["at its end: not TOML: "], id="end"),
    ],
)
def test_mistakes(text: str, errors: list[str], tmp_path: Path) -> None:
    file = tmp_path / "test.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(errors)
    for line, error in zip(lines, errors, strict=True):
        assert line.startswith(f"{file}: ")
        assert error in line


def test_the_parameters_of_the_original_have_its_defaults() -> None:
    edge = Config().edge
    assert edge.sip_asymmetrics == "/etc/openser/sip-asymmetric-clients"
    assert edge.rtp_asymmetrics == "/etc/openser/rtp-asymmetric-clients"
    assert edge.natping_interval == 60
    assert (edge.nat_flag, edge.sip_natping_flag) == (6, 2)


def test_lists_do_not_stop_a_configuration_but_are_judged(tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    agents.write_text("good\n(bad\n")
    config = loads('edge.rtp_asymmetrics = "agents"\nedge.sip_asymmetrics = "missing"', directory=tmp_path)
    said: list[str] = []
    clients = clients_of(config.edge, said.append)
    assert clients.rtp.patterns == ("good",)
    assert [line.partition(";")[0] for line in said] == [
        f"{tmp_path}/missing: the list of SIP-asymmetric clients cannot be read: No such file or directory",
        f"{agents}, line 2: '(bad' is skipped: missing )",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory; create it"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin1.toml").write_bytes(b"# ok\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin1\.toml: line 2: expected UTF-8"):
        load(tmp_path / "latin1.toml")


DOCUMENT = '''a = 1
"b c".d = """
x = 2
[t]
"""
[t]
e = [
  1,
]
[[u.v]]
f = 1
[u.v.w]
g = 1
[[u.v]]
f = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("b c", "d"), 2),
        (("t",), 6),
        (("t", "e", 0), 7),
        (("u", "v"), 10),
        (("t", "a"), 6),
        (("u", "v", 0, "f"), 11),
        (("u", "v", 0, "w", "g"), 13),
        (("u", "v", 1, "f"), 15),
        (("u", "v", 1, "z"), 14),
        (("x",), None),
    ],
)
def test_line_numbers(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(path, line_numbers(DOCUMENT)) == line


def test_what_settings_were_called_leads_to_settings() -> None:
    for place in _HERE.values():
        for name in re.findall(r"\b(?:relay|dispatcher|ng)\.[a-z_]+", place):
            table, _, key = name.partition(".")
            assert hasattr(getattr(Config(), table), key), name


def settings(kind: types.Type) -> st.SearchStrategy[Any]:
    """Any value that the type allows."""
    match kind:
        case types.BoolType():
            return st.booleans()
        case types.IntType():
            low = 0 if kind.ge is None else int(kind.ge)
            return st.integers(low, 2**31 if kind.le is None else int(kind.le))
        case types.FloatType():
            return st.floats(kind.ge or 0.0, kind.le or 1e6)
        case types.StrType(pattern=None):
            return st.text(st.characters(codec="utf-8"))
    raise AssertionError(kind)


@given(st.data())
def test_whatever_is_written_is_read_back(data: st.DataObject) -> None:
    fields = data.draw(st.lists(st.sampled_from(types.type_info(Limits).fields), unique_by=lambda f: f.name))  # type: ignore[attr-defined]  # a StructType
    limits = {field.name: data.draw(settings(field.type)) for field in fields}
    realm = data.draw(settings(types.StrType()))
    text = f"[edge]\nrealm = {toml(realm)}\n[edge.limits]\n" + "\n".join(f"{k} = {toml(v)}" for k, v in limits.items())
    config = loads(text)
    assert config.edge.realm == realm
    assert config.edge.limits == msgspec.structs.replace(Limits(), **limits)


@given(st.text(st.characters(codec="utf-8")) | st.text("[]{}=\"'#.\n ab1", max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        loads(text)
    except ConfigError as error:
        assert str(error).startswith("configuration: ")


def test_the_check_reads_the_lists(tmp_path: Path) -> None:
    """As an operator calls it: a process of its own."""

    def check() -> tuple[int, str]:
        command = [sys.executable, "-m", "mediaproxy", "config", "--check", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    file, sip = tmp_path / "mediaproxy.toml", tmp_path / "sip"
    file.write_text('edge.sip_asymmetrics = "sip"\n')
    sip.write_text("good\n")
    assert check() == (0, "")
    sip.write_text("good\n# comment\n(bad\n*\n")
    assert check() == (
        1,
        f"mediaproxy: {sip}, line 3: '(bad' is skipped: missing )\n"
        f"mediaproxy: {sip}, line 4: '*' is skipped: nothing to repeat before *\n",
    )
    sip.unlink()
    status, text = check()
    assert status == 1
    assert f"mediaproxy: {sip}: the list of SIP-asymmetric clients cannot be read: No such file" in text

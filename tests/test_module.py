"""The module's functions as a script calls them: codes, arguments, routes, and what they do about NAT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy import module
from mediaproxy.control import MediaRequest
from mediaproxy.module import CALLABLE_FROM, FAILED, NO_SDP, NOTHING, OK, ModuleError, Result, RouteType, Run, drive
from mediaproxy.nat import NAMED_TESTS, note_source
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Request, parse
from tests.vmodule import NO_STREAMS, RELAYED, SDP, SOURCE, MediaArm, message, run, use

# -- codes, arguments, routes


def test_a_code_is_true_if_it_is_positive() -> None:
    assert [bool(code) for code in (OK, NOTHING, FAILED, NO_SDP, Result(0))] == [True, True, False, False, False]
    assert [int(code) for code in (OK, NOTHING, FAILED, NO_SDP)] == [1, 2, -1, -2]
    assert OK == 1 and f"{NO_SDP}" == "-2"


@pytest.mark.parametrize(
    ("value", "number"),
    [("3", 3), (3, 3), ("", 0), (0, 0), ("007", 7), ("65535", 65535), (65535, 65535), ("00000", 0)],
)
def test_sums_are_given_as_number_or_text(value: object, number: int) -> None:
    assert module.test_numbers("client_nat_test", value) == number


@pytest.mark.parametrize(
    "value",
    ["x", "0x7", "-1", "+1", " 3", "3 ", "1.0", "65536", "000001", "\u0663", 65536, -1, 1.0, True, None, b"3", [3]],
)
def test_what_is_no_sum_is_refused(value: object) -> None:
    for function in ("client_nat_test", "nat_uac_test"):
        with pytest.raises(ModuleError, match=function):
            module.test_numbers(function, value)
        with pytest.raises(ModuleError, match=function):
            getattr(run(message()), function)(value)


def test_an_unknown_name_is_refused_with_all_that_are_known() -> None:
    for value in ("", "CGN", "cgn ", "4", 4, None):
        with pytest.raises(ModuleError) as caught:
            run(message()).nat_test(value)
        assert all(name in str(caught.value) for name in ("nat_test", *NAMED_TESTS))


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        ("client_nat_test", "7", "seven"),
        ("nat_uac_test", 19, -19),
        ("nat_test", "ula", "lula"),
        ("ice_candidate", "low-priority", "lowest"),
    ],
)
def test_arguments_can_be_checked_before_anything_runs(function: str, good: object, bad: object) -> None:
    module.ARGUMENT[function](good)
    with pytest.raises(ModuleError, match=function):
        module.ARGUMENT[function](bad)


def call(one: Run, function: str) -> Result:
    arguments: dict[str, list[object]] = {
        "client_nat_test": ["7"],
        "nat_uac_test": [1],
        "nat_test": ["cgn"],
        "ice_candidate": ["keep"],
    }
    done = getattr(one, function)(*arguments.get(function, []))
    result = done if isinstance(done, Result) else drive(done, MediaArm().answer)
    assert isinstance(result, Result)
    return result


@pytest.mark.parametrize("route", RouteType)
@pytest.mark.parametrize("function", CALLABLE_FROM)
def test_routes(function: str, route: RouteType) -> None:
    """As documented: everywhere, but fix_contact not in failure_route; the alias functions where Kamailio has them."""
    asked = message("200 INVITE") if route is RouteType.ONREPLY else message()
    wrong = {
        "fix_contact": {RouteType.FAILURE},
        "add_contact_alias": {RouteType.FAILURE},
        "handle_ruri_alias": {RouteType.FAILURE, RouteType.ONREPLY},
    }.get(function, set())
    if route not in wrong:
        call(run(asked, route), function)
        return
    with pytest.raises(ModuleError) as caught:
        call(run(asked, route), function)
    assert function in str(caught.value) and route in str(caught.value) and "request_route" in str(caught.value)


# -- client_nat_test, nat_test, nat_uac_test


@pytest.mark.parametrize(
    ("headers", "source", "positive"),
    [
        pytest.param(["Contact: <sip:a@192.168.1.10>"], SOURCE, {1, 2, 3, 4, 5, 6, 7}, id="behind-nat"),
        pytest.param([], SOURCE, {2, 3, 4, 5, 6, 7}, id="no-contact"),
        pytest.param(
            ["Via: SIP/2.0/UDP 198.51.100.7:34567", "Contact: <sip:a@10.0.0.1>"], SOURCE, {1, 3, 5, 7}, id="only-1"
        ),
        pytest.param(["Via: SIP/2.0/UDP 198.51.100.9:34567"], SOURCE, {2, 3, 6, 7}, id="only-2"),
        pytest.param(["Via: SIP/2.0/UDP 198.51.100.7"], SOURCE, {2, 3, 6, 7}, id="only-2-by-the-port"),
        pytest.param(["Via: SIP/2.0/UDP 10.0.0.1"], "10.0.0.1:5060", {4, 5, 6, 7}, id="only-4"),
        pytest.param(["Via: SIP/2.0/UDP 198.51.100.7:34567"], SOURCE, set(), id="none"),
        pytest.param(
            ["Via: SIP/2.0/UDP 198.51.100.7", "User-Agent: ipDialog SipTone II"], SOURCE, set(), id="sip-asymmetric"
        ),
        pytest.param(["Via: nonsense", "Contact: <"], SOURCE, set(), id="unreadable"),
    ],
)
def test_client_nat_test(headers: list[str], source: str, positive: set[int]) -> None:
    one = run(message("INVITE", *headers), source=source)
    for type_ in range(8):
        expected = OK if type_ in positive else FAILED
        assert one.client_nat_test(type_) == expected
        assert one.client_nat_test(str(type_)) == expected
        assert one.client_nat_test(type_ + 8 + 32768) == expected, "unknown bits mean nothing"
    for meaningless in (8, "16", 65528):
        assert one.client_nat_test(meaningless) == FAILED
    assert one.message is one.arrived


def test_a_reply_is_tested_for_its_contact() -> None:
    assert run(message("200 INVITE", "Contact: <sip:b@10.0.0.1>")).client_nat_test("1") == OK
    assert run(message("200 INVITE", "Contact: <sip:b@192.0.2.1>")).client_nat_test("1") == FAILED


def test_named_tests_and_nathelpers_numbers() -> None:
    one = run(message("INVITE", "Contact: <sip:a@100.64.0.1>", body=SDP))
    positive = {"source-differs", "via-private", "sdp-private", "port-differs", "cgn", "contact-differs"}
    assert {name for name in NAMED_TESTS if one.nat_test(name)} == positive
    assert {name for name in NAMED_TESTS if one.nat_test(name) == FAILED} == set(NAMED_TESTS) - positive
    assert {flag for bit in range(11) if one.nat_uac_test(flag := 1 << bit)} == {1, 2, 4, 8, 16, 128, 256}
    assert one.nat_uac_test("96") == FAILED
    one.destination = Uri.parse("sip:192.0.2.1")
    assert one.nat_uac_test("512") == OK


def test_the_tests_see_the_fixed_contact_but_not_what_is_noted_in_via() -> None:
    public = "Via: SIP/2.0/UDP 198.51.100.7:34567;rport"
    one = run(message("INVITE", public, "Contact: <sip:a@10.0.0.1>", body=SDP))
    one.message = note_source(one.message, one.arrival)
    assert "received" in one.message.via.params
    assert [one.client_nat_test(1), one.client_nat_test(2)] == [OK, FAILED]
    assert one.fix_contact() == OK
    assert use(one) == OK
    assert [one.client_nat_test(1), one.client_nat_test(2)] == [FAILED, FAILED]
    assert one.nat_test("contact-differs") == FAILED
    assert one.nat_test("sdp-private") == OK, "the relay's address in the SDP is not the phone's"


# -- fix_contact


@pytest.mark.parametrize(
    ("contacts", "source", "code", "fixed"),
    [
        ([], SOURCE, FAILED, []),
        (["*"], SOURCE, FAILED, ["*"]),
        (["<tel:+1>"], SOURCE, FAILED, ["<tel:+1>"]),
        (["<sip:a@10.0.0.1"], SOURCE, FAILED, ["<sip:a@10.0.0.1"]),
        (
            ['"A" <sip:a@10.0.0.1:5060;line=7>;expires=3600'],
            SOURCE,
            OK,
            ['"A" <sip:a@198.51.100.7:34567;line=7>;expires=3600'],
        ),
        (
            ["<sip:a@10.0.0.1>, sip:b@10.0.0.2;q=1", "<sip:c@h>"],
            SOURCE,
            OK,
            ["<sip:a@198.51.100.7:34567>, sip:b@198.51.100.7:34567;q=1", "<sip:c@198.51.100.7:34567>"],
        ),
        (["<sip:a@[fd00::1]>"], "[2001:db8::7]:5060", OK, ["<sip:a@[2001:db8::7]:5060>"]),
        (["<sip:a@198.51.100.7:34567>"], SOURCE, OK, ["<sip:a@198.51.100.7:34567>"]),
        (["<sip:a@198.51.100.7:5060>"], SOURCE, OK, ["<sip:a@198.51.100.7:34567>"]),
    ],
)
@pytest.mark.parametrize("route", [RouteType.REQUEST, RouteType.BRANCH, RouteType.ONREPLY])
def test_fix_contact(contacts: list[str], source: str, code: Result, fixed: list[str], route: RouteType) -> None:
    start = "200 INVITE" if route is RouteType.ONREPLY else "REGISTER"
    one = run(message(start, *(f"Contact: {value}" for value in contacts)), route, source=source)
    assert one.fix_contact() == code
    assert list(one.message.headers("contact")) == fixed
    assert one.message.remove("contact") == one.arrived.remove("contact")
    assert one.fix_contact() == code, "twice is as good as once"
    assert list(one.message.headers("contact")) == fixed


@pytest.mark.parametrize("header", ["User-Agent", "Server"])
def test_fix_contact_keeps_the_port_of_a_sip_asymmetric_client(header: str) -> None:
    agent = f"{header}: ipDialog SipTone II"
    one = run(message("REGISTER", agent, "Contact: <sip:a@10.0.0.1:5062>, <sip:b@10.0.0.1>"))
    assert one.fix_contact() == OK
    assert one.message.header("contact") == "<sip:a@198.51.100.7:5062>, <sip:b@198.51.100.7>"


def test_the_relay_is_told_the_contact_as_the_phone_sent_it() -> None:
    one, arm = run(message("INVITE", "Contact: <sip:a@10.0.0.1>", body=SDP)), MediaArm()
    assert (one.fix_contact(), use(one, arm)) == (OK, OK)
    assert isinstance(arm.only, MediaRequest) and arm.only.contact == "sip:a@10.0.0.1"
    assert one.message.header("contact") == "<sip:a@198.51.100.7:34567>"
    assert one.message.body.decode() == RELAYED


# -- aliases


@pytest.mark.parametrize(
    ("contact", "codes", "after"),
    [
        ("<sip:a@10.0.0.1>", (OK, FAILED), "<sip:a@10.0.0.1;alias=198.51.100.7~34567~1>"),
        (f"<sip:a@{SOURCE}>", (NOTHING, NOTHING), f"<sip:a@{SOURCE}>"),
        ("*", (NOTHING, NOTHING), "*"),
        (None, (NOTHING, NOTHING), None),
        ("<sip:a@10.0.0.1", (FAILED, FAILED), "<sip:a@10.0.0.1"),
    ],
)
def test_add_contact_alias(contact: str | None, codes: tuple[Result, Result], after: str | None) -> None:
    one = run(message("REGISTER", *([f"Contact: {contact}"] if contact else [])))
    assert (one.add_contact_alias(), one.again(RouteType.BRANCH).add_contact_alias()) == codes
    assert one.message.header("contact") == after


def test_an_alias_names_the_transport() -> None:
    one = run(message("INVITE", "Contact: <sip:a@10.0.0.1>"), transport="tls")
    assert one.add_contact_alias() == OK
    assert one.message.header("contact") == "<sip:a@10.0.0.1;alias=198.51.100.7~34567~3>"


@pytest.mark.parametrize(
    ("params", "code", "left", "destination"),
    [
        (";alias=192.0.2.4~5~2", OK, "", "sip:192.0.2.4:5;transport=tcp"),
        (";x;alias=192.0.2.4~5~1", OK, ";x", "sip:192.0.2.4:5"),
        (";x", NOTHING, ";x", None),
        (";alias=192.0.2.4~5", FAILED, ";alias=192.0.2.4~5", None),
    ],
)
@pytest.mark.parametrize("route", [RouteType.REQUEST, RouteType.BRANCH])
def test_handle_ruri_alias(params: str, code: Result, left: str, destination: str | None, route: RouteType) -> None:
    asked = message("BYE")
    assert isinstance(asked, Request)
    one = run(asked.with_uri(f"sip:b@10.0.0.9{params}"), route)
    assert one.handle_ruri_alias() == code
    assert isinstance(one.message, Request) and one.message.uri_text == f"sip:b@10.0.0.9{left}"
    assert (None if one.destination is None else str(one.destination)) == destination
    assert one.again(RouteType.BRANCH).destination is one.destination


# -- whatever comes

_junk = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12)


@given(
    st.sampled_from(["INVITE", "BYE", "CANCEL", "ACK", "INFO", "200 INVITE", "486 INVITE", "200 BYE"]),
    st.sampled_from(["Via", "From", "To", "Call-ID", "CSeq", "Contact", "Content-Encoding"]),
    _junk,
    st.sampled_from(["", SDP, NO_STREAMS, SDP[:70], "x"]),
)
def test_nothing_that_a_peer_writes_raises(start: str, name: str, value: str, body: str) -> None:
    asked = message(start, f"{name}: {value}x", "Contact: <sip:a@10.0.0.1>", body=body)
    one = run(asked)
    for function in CALLABLE_FROM:
        if one.route in CALLABLE_FROM[function]:
            assert call(one, function) in (OK, NOTHING, FAILED, NO_SDP)
    assert parse(bytes(one.message)) == one.message

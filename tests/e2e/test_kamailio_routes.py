"""The functions in each kind of route, and several times over one message: inside a real Kamailio."""

from collections.abc import Iterator

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaRequest
from mediaproxy.sip.message import Request, parse
from tests import kamailiosite
from tests.e2e.conftest import need
from tests.kamailiosite import RELAY, RELAYED, SDP, Phone, Site, invite, phones, words

ANSWER = SDP.replace(b"192.168.1.10", b"10.0.0.9")
ANSWERED = ANSWER.replace(b"c=IN IP4 10.0.0.9", f"c=IN IP4 {RELAY}".encode()).replace(b"5004", b"60000")


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with kamailiosite.site(tmp_path_factory.mktemp("kamailio")) as one:
        yield one


@pytest.fixture(autouse=True)
def forget(site: Site) -> None:
    """Each test counts its own questions."""
    site.dispatcher.questions.clear()


# -- twice


def test_twice_in_one_route(site: Site) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(request="media fix_contact media fix_contact media")))
    assert [code for _, code in site.results(message)] == [1] * 5
    assert message.body == RELAYED
    assert message.headers("contact") == (f"<sip:a@{site.alice.place}>",)
    assert len(site.dispatcher.media) == 1


def test_later_functions_see_the_fixed_contact(site: Site) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(request="test=1 fix_contact test=1 test=5 alias")))
    assert site.results(message) == [("test=1", 1), ("fix_contact", 1), ("test=1", -1), ("test=5", -1), ("alias", 2)]


def test_request_route_and_branch_route(site: Site) -> None:
    sent = invite(site.alice, site.to, headers=words(request="fix_contact media", branch="fix_contact media test=1"))
    message = site.send(sent)
    assert site.results(message, "branch") == [("fix_contact", 1), ("media", 1), ("test=1", -1)]
    assert message.body == RELAYED
    assert message.headers("contact") == (f"<sip:a@{site.alice.place}>",)
    assert len(site.dispatcher.media) == 1


def forked(site: Site, carol: Phone, **routes: str) -> tuple[Request, Request]:
    """What Bob and Carol get of one INVITE."""
    request = f"{routes.pop('request', '')} fork=carol@{carol.place}"
    site.alice.send(invite(site.alice, site.to, headers=words(request=request, **routes)))
    got = site.bob.request("INVITE", site.alice.call_id), carol.request("INVITE")
    for phone, one in zip((site.bob, carol), got, strict=True):
        phone.answer(one, 486)
    site.alice.response(486)
    return got


@pytest.fixture
def carol(site: Site) -> Iterator[Phone]:
    with phones(1, ("127.0.0.1", kamailiosite.PORT)) as (one,):
        yield one


@pytest.mark.parametrize(
    "routes",
    [
        {"request": "fix_contact media"},
        {"branch": "fix_contact media"},
        {"branch": "media media fix_contact fix_contact"},
        {"request": "fix_contact", "branch": "media"},
        {"request": "media", "branch": "fix_contact"},
        {"request": "fix_contact media", "branch": "media fix_contact"},
    ],
    ids=str,
)
def test_each_branch_has_the_edits_once(site: Site, carol: Phone, routes: dict[str, str]) -> None:
    for message in forked(site, carol, **routes):
        assert message.octets == RELAYED
        assert message.headers("contact") == (f"<sip:a@{site.alice.place}>",)
    assert len(site.dispatcher.media) == 1


@pytest.mark.parametrize(
    "routes",
    [{"request": "fix_contact media"}, {"branch": "fix_contact media"}, {"request": "media", "branch": "fix_contact"}],
)
def test_each_branch_has_edits_that_are_no_text(site: Site, carol: Phone, routes: dict[str, str]) -> None:
    body, contact = SDP + b"a=\xe4\0\r\n", b'Contact: "\xe4" <sip:a@192.168.1.10:5060>\r\n'
    request = f"{routes.pop('request', '')} fork=carol@{carol.place}"
    site.alice.send(invite(site.alice, site.to, body, headers=words(request=request, **routes), contact=contact))
    for phone in (site.bob, carol):
        message = phone.request("INVITE", site.alice.call_id)
        assert message.octets == RELAYED + b"a=\xe4\0\r\n"
        assert message.raw_fields("contact") == (b'Contact: "\xe4" <sip:a@%b>\r' % site.alice.place.encode(),)
        phone.answer(message, 486)
    site.alice.response(486)


def retried(site: Site, carol: Phone, **routes: str) -> list[Request]:
    """What Carol gets when Bob has refused: two tries."""
    routes["failure"] = f"{routes.get('failure', '')} retry=carol@{carol.place}"
    sent = invite(site.alice, site.to, headers=words(**routes))
    site.alice.send(sent)
    call_id = parse(sent).call_id
    site.bob.answer(site.bob.request("INVITE", call_id), 486)
    tries = []
    for _ in range(2):
        tries.append(carol.request("INVITE", call_id))
        carol.answer(tries[-1], 603)
    site.alice.response(603)
    return tries


@pytest.mark.parametrize(
    "routes",
    [
        {"request": "fix_contact media", "failure": "media media"},
        {"request": "fix_contact media", "failure": "", "branch": "fix_contact media"},
        {"request": "fix_contact media", "failure": "media", "branch": "fix_contact media"},
        {"request": "fix_contact", "failure": "media"},
        {"request": "fix_contact", "failure": "media media"},
        {"request": "fix_contact", "failure": "media", "branch": "media"},
        {"request": "", "failure": "media", "branch": "fix_contact media"},
        {"branch": "fix_contact media"},
    ],
    ids=str,
)
def test_a_second_try_has_the_edits_once(site: Site, carol: Phone, routes: dict[str, str]) -> None:
    for message in retried(site, carol, **routes):
        assert message.octets == RELAYED
        assert message.headers("contact") == (f"<sip:a@{site.alice.place}>",)


def test_after_a_branch_route_the_request_route_goes_on(site: Site) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(branch="media fix_contact", relayed="media end")))
    assert message.octets == RELAYED
    site.kamailio.wait_log(f"RESULT {message.call_id.encode().hex()} relayed end 1")
    assert [one.call_id for one in site.dispatcher.media].count(message.call_id) == 1


def test_fix_contact_is_refused_in_a_failure_route(site: Site, carol: Phone) -> None:
    message = retried(site, carol, failure="fix_contact alias")[0]
    assert site.result(message, "failure")["fix_contact"] == -1
    assert site.result(message, "failure")["alias"] == -1
    assert message.header("contact") == "<sip:a@192.168.1.10:5060>"
    site.kamailio.wait_log(
        "fix_contact() in failure_route: cannot be called from failure_route, only from request_route"
    )


@pytest.mark.parametrize("word", ["test=x", "test=-1", "test=+1", "named=cgnat", "uac=0x2", "ice=maybe"])
def test_a_wrong_argument_is_refused(site: Site, word: str) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(request=f"{word} fix_contact")))
    assert site.results(message) == [(word, -1), ("fix_contact", 1)]


# -- replies


def answered(site: Site, status: int, body: bytes, **routes: str) -> tuple[Request, bytes]:
    """What Bob got, and what Alice gets of his answer."""
    site.alice.send(invite(site.alice, site.to, headers=words(**routes)))
    request = site.bob.request("INVITE", site.alice.call_id)
    site.bob.answer(request, status, body, contact="<sip:b@10.0.0.9:5062>", User_Agent="B\xe4")
    return request, bytes(site.alice.response(status))


@pytest.mark.parametrize("status", [180, 183, 200])
@pytest.mark.parametrize("route", ["core", "reply"])
def test_replies_are_repaired(site: Site, status: int, route: str) -> None:
    request, got = answered(site, status, ANSWER, **{route: "test=1 append=X-A fix_contact media append=X-B media"})
    reply = parse(got)
    assert reply.octets == ANSWERED
    assert reply.headers("contact") == (f"<sip:b@{site.bob.place}>",)
    assert reply.raw_fields("user-agent") == (b"User-Agent: B\xe4\r",)
    assert reply.header("x-a") == reply.header("x-b") == "appended"
    assert site.result(request, route)["test=1"] == 1
    (question,) = site.dispatcher.media
    assert question.status == status
    assert (question.sender.tag, question.receiver.tag) == (f"t{site.bob.port}", request.from_.tag)
    assert question.branch == request.via.branch
    assert question.contact == "sip:b@10.0.0.9:5062"
    if status < 200:
        site.bob.answer(request, 486)
        site.alice.response(486)


@pytest.mark.parametrize("route", ["core", "reply"])
def test_replies_that_are_no_text(site: Site, route: str) -> None:
    site.alice.send(invite(site.alice, site.to, headers=words(**{route: "fix_contact media"})))
    request = site.bob.request("INVITE", site.alice.call_id)
    site.bob.answer(request, 200, ANSWER + b"a=\xe4\0\r\n", contact='"\xe4" <sip:b@10.0.0.9>')
    reply = site.alice.response(200)
    assert reply.octets == ANSWERED + b"a=\xe4\0\r\n"
    assert reply.raw_fields("contact") == (b'Contact: "\xe4" <sip:b@%b>\r' % site.bob.place.encode(),)


def test_both_reply_routes(site: Site) -> None:
    request, got = answered(site, 200, ANSWER, core="fix_contact media", reply="fix_contact media test=1")
    assert parse(got).octets == ANSWERED
    assert parse(got).headers("contact") == (f"<sip:b@{site.bob.place}>",)
    assert len(site.dispatcher.media) == 1
    assert site.results(request, "reply") == [("fix_contact", 1), ("media", 1), ("test=1", -1)]


@pytest.mark.parametrize("route", ["core", "reply"])
def test_a_failed_branch_is_told(site: Site, route: str) -> None:
    request, _ = answered(site, 486, b"", **{route: "media"})
    assert site.results(request, route) == [("media", -2)]
    (question,) = site.dispatcher.questions
    assert isinstance(question, EndRequest)
    assert (question.cause, question.status, question.branch) == (EndCause.BRANCH, 486, request.via.branch)


@pytest.mark.parametrize("route", ["core", "reply"])
def test_a_refused_reinvite_undoes_its_offer(site: Site, route: str) -> None:
    sent = invite(site.alice, site.to, headers=words(**{route: "media"}))
    site.alice.send(sent.replace(b"To: <sip:b@sip.test>", b"To: <sip:b@sip.test>;tag=old\xe9"))
    site.bob.answer(site.bob.request("INVITE", site.alice.call_id), 488)
    site.alice.response(488)
    (question,) = site.dispatcher.questions
    assert isinstance(question, EndRequest)
    assert (question.cause, question.status, question.sender.tag) == (EndCause.REFUSED, 488, "old\xe9")


def test_a_failed_call_is_ended(site: Site) -> None:
    sent = invite(site.alice, site.to, headers=words(request="media", failure="end"))
    message = site.send(sent, 480)
    assert site.results(message, "failure") == [("end", 1)]
    question = site.dispatcher.questions[-1]
    assert isinstance(question, EndRequest)
    assert (question.cause, question.status) == (EndCause.FAILURE, 480)
    assert question.branch == parse(sent).via.branch


def test_bye_and_cancel_end(site: Site) -> None:
    for method, cause in (("BYE", EndCause.BYE), ("CANCEL", EndCause.CANCEL)):
        sent = invite(site.alice, site.to, b"", headers=words(request="end media", no="") + b"X-No-Relay: 1\r\n")
        site.alice.send(sent.replace(b"INVITE", method.encode()))
        site.kamailio.wait_log(f"RESULT {parse(sent).call_id.encode().hex()} request media -2")
        question = site.dispatcher.questions[-1]
        assert isinstance(question, EndRequest)
        assert question.cause is cause


def test_ack_of_a_failure_says_nothing(site: Site) -> None:
    """It is hop by hop: the callee's failure must not look as if the call stood."""
    site.alice.send(invite(site.alice, site.to))
    request = site.bob.request("INVITE", site.alice.call_id)
    site.bob.answer(request, 486)
    failed = site.alice.response(486)
    ack = invite(site.alice, site.to, b"", headers=words(request="media") + b"X-No-Relay: 1\r\n", contact=b"")
    ack = ack.replace(b"INVITE", b"ACK").replace(parse(ack).via.branch.encode(), failed.via.branch.encode())
    ack = ack.replace(parse(ack).call_id.encode(), failed.call_id.encode())
    ack = ack.replace(b"tag=" + parse(ack).from_.tag.encode(), b"tag=" + failed.from_.tag.encode())
    site.alice.send(ack.replace(b"To: <sip:b@sip.test>", b"To: <sip:b@sip.test>;tag=" + failed.to.tag.encode()))
    site.kamailio.wait_log(f"RESULT {failed.call_id.encode().hex()} request media -2")
    assert site.dispatcher.questions == []


# -- what the dispatcher is told


def test_the_variables_of_the_c_module(site: Site) -> None:
    set_ = "set=s:signaling_ip=203.0.113.77 set=s:media_relay=there set=s:ice_candidate=remove"
    ice = SDP + b"a=ice-ufrag:x\r\na=ice-pwd:y\r\na=candidate:1 1 UDP 1 192.168.1.10 5004 typ host\r\n"
    message = site.send(invite(site.alice, site.to, ice, headers=words(request=f"{set_} media")))
    (question,) = site.dispatcher.media
    assert question.phone.endpoint is not None
    assert question.phone.endpoint.address == "203.0.113.77"
    assert question.phone.known_by == "explicit"
    assert question.relay_wish == "there"
    assert message.octets == RELAYED


def test_what_is_asked(site: Site) -> None:
    sent = invite(site.alice, site.to, headers=words(request="fix_contact media") + b"User-Agent: A\xe4\r\n")
    site.send(sent)
    (question,) = site.dispatcher.media
    assert isinstance(question, MediaRequest)
    assert question.call_id == parse(sent).call_id
    assert question.contact == "sip:a@192.168.1.10:5060"
    assert question.user_agent == "A\xe4"
    assert str(question.phone.endpoint) == site.alice.place
    assert question.branch == parse(sent).via.branch
    assert question.receiver_version == 4


# -- aliases, and edits that follow an edit


def test_aliases(site: Site) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(request="record_route alias alias media")))
    assert site.results(message)[1:] == [("alias", 1), ("alias", -1), ("media", 1)]
    (contact,) = message.headers("contact")
    assert contact == f"<sip:a@192.168.1.10:5060;alias={site.alice.host}~{site.alice.port}~1>"
    assert message.octets == RELAYED


@pytest.mark.parametrize("route", ["request", "branch"])
def test_an_alias_leads_to_the_phone(site: Site, route: str) -> None:
    uri = f"bob@192.0.2.9:5060;x=1;alias={site.bob.host}~{site.bob.port}~1;y"
    message = site.send(invite(site.alice, uri, headers=words(**{route: "ruri ruri"})))
    assert isinstance(message, Request)
    assert message.uri_text == "sip:bob@192.0.2.9:5060;x=1;y"
    assert site.results(message, route) == [("ruri", 1), ("ruri", 2)]


def test_a_second_edit_of_contact_goes_by_the_buffer(site: Site) -> None:
    message = site.send(invite(site.alice, site.to, headers=words(request="append=X-A alias fix_contact media test=1")))
    assert site.result(message)["fix_contact"] == 1
    (contact,) = message.headers("contact")
    assert contact == f"<sip:a@{site.alice.place};alias={site.alice.host}~{site.alice.port}~1>"
    assert message.octets == RELAYED
    assert message.headers("x-a") == ("appended",)


def test_or_is_refused(site: Site) -> None:
    message = site.send(
        invite(site.alice, site.to, headers=words(request="record_route alias fix_contact media test=1"))
    )
    assert site.result(message)["fix_contact"] == -1
    (contact,) = message.headers("contact")
    assert contact == f"<sip:a@192.168.1.10:5060;alias={site.alice.host}~{site.alice.port}~1>"
    assert message.octets == RELAYED


def test_somebody_puts_the_edits_into_the_buffer(site: Site) -> None:
    around = "fix_contact apply append=X-A media apply media fix_contact apply test=1"
    message = site.send(invite(site.alice, site.to, headers=words(request=around)))
    assert {code for word, code in site.results(message) if word != "test=1"} == {1}
    assert message.octets == RELAYED
    assert message.headers("contact") == (f"<sip:a@{site.alice.place}>",)
    (question,) = site.dispatcher.media
    assert question.contact == "sip:a@192.168.1.10:5060"


def test_nathelper_numbers(site: Site) -> None:
    message = site.send(
        invite(site.alice, site.to, headers=words(request="uac=1 uac=4 uac=8 uac=128 uac=512 named=cgn"))
    )
    codes = {"uac=1": 1, "uac=4": -1, "uac=8": 1, "uac=128": 1, "uac=512": -1, "named=cgn": -1}
    assert site.result(message) == codes


# -- REGISTER


def test_save_stores_the_fixed_contact(site: Site) -> None:
    register = invite(
        site.alice, "sip.test", b"", headers=words(request="append=X-A fix_contact test=1 save") + b"X-No-Relay: 1\r\n"
    )
    site.alice.send(register.replace(b"INVITE", b"REGISTER"))
    reply = site.alice.response(200)
    assert reply.header("contact") == f"<sip:a@{site.alice.place}>;expires=3600"
    site.kamailio.wait_log(f"{parse(register).call_id.encode().hex()} request test=1")
    assert site.result(parse(register))["test=1"] == -1


def test_save_after_record_route_does_not_see_it_and_the_log_says_so(site: Site) -> None:
    register = invite(site.alice, "sip.test", b"", headers=words(request="record_route fix_contact save", no="relay"))
    register = register.replace(b"INVITE", b"REGISTER").replace(b"X-No:", b"X-No-Relay:")
    site.alice.send(register.replace(b"b@sip.test", b"c@sip.test"))
    reply = site.alice.response(200)
    site.kamailio.wait_log(f"{parse(register).call_id.encode().hex()} request save")
    assert site.result(parse(register)) == {"record_route": 1, "fix_contact": 1, "save": 1}
    assert reply.header("contact") == "<sip:a@192.168.1.10:5060>;expires=3600"
    site.kamailio.wait_log("save() does not see it: call it before record_route()")


def test_force_rport_before_a_saved_contact_still_counts(site: Site) -> None:
    register = invite(site.alice, "sip.test", b"", headers=words(request="rport fix_contact save", no="relay"))
    register = (
        register.replace(b"INVITE", b"REGISTER")
        .replace(b"X-No:", b"X-No-Relay:")
        .replace(b";rport", b"")
        .replace(b"b@sip", b"d@sip")
    )
    site.alice.send(register.replace(site.alice.place.encode() + b";branch", b"192.168.1.10:5060;branch"))
    assert site.alice.response(200).header("contact") == f"<sip:a@{site.alice.place}>;expires=3600"


# -- a script that fails


@pytest.mark.parametrize("word", ["raise", "raise=SystemExit", "raise=RecursionError", "unheard-of"])
def test_an_exception_in_the_request_route_is_500(site: Site, word: str) -> None:
    for _ in range(4):  # both workers get one, and go on
        site.alice.send(invite(site.alice, site.to, headers=words(request=word)))
        assert site.alice.response(500).reason == "Server Internal Error"
    for _ in range(4):
        assert site.send(invite(site.alice, site.to, headers=words(request="media"))).octets == RELAYED


@pytest.mark.parametrize("route", ["core", "reply", "branch", "failure"])
def test_an_exception_in_another_route_lets_the_message_pass(site: Site, route: str) -> None:
    for _ in range(4):
        message = site.send(invite(site.alice, site.to, headers=words(request="media", **{route: "raise"})))
        assert message.octets == RELAYED

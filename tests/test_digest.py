"""Digest: the RFCs' own examples, what each fault is answered with, replay, and that no bytes raise but SipError."""

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.sip.digest import Account, Algorithm, Credentials, Outcome, Realm, Replays, Verdict, digest, verify
from mediaproxy.sip.grammar import SipError

KEY = b"k" * 32
NOW = 1_700_000_000.0
SALT = "0123456789abcdef"
ALL = tuple(Algorithm)


def answer(challenge: str, username: str, password: str, /, **change: Any) -> str:
    """What a phone makes of one challenge; ``change`` replaces parameters (None leaves them out)."""
    params = dict(
        (name, value.strip('"')) for name, value in (p.split("=", 1) for p in challenge[len("Digest ") :].split(", "))
    )
    algorithm = Algorithm(params["algorithm"])
    method = change.pop("method", "REGISTER")
    answered = {
        "username": username,
        "realm": params["realm"],
        "nonce": params["nonce"],
        "uri": "sip:example.com",
        "algorithm": params["algorithm"],
        "qop": "auth",
        "nc": "00000001",
        "cnonce": "c0ffee",
    } | {k: v for k, v in change.items() if v is not None}
    secret = digest(algorithm, f"{username}:{params['realm']}:{password}".encode())
    ha2 = digest(algorithm, f"{method}:{answered['uri']}".encode())
    text = f"{secret}:{answered['nonce']}:{answered['nc']}:{answered['cnonce']}:auth:{ha2}"
    answered.setdefault("response", digest(algorithm, text.encode()))
    if answered.get("userhash") == "true":
        answered["username"] = digest(algorithm, f"{username}:{params['realm']}".encode())
    bare = {"algorithm", "qop", "nc", "userhash"}
    kept = {k: v for k, v in answered.items() if not (k in change and change[k] is None)}
    wire = ", ".join(f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in kept.items())
    return "Digest " + wire.encode().decode("latin-1")


ALICE = Account(username="alice", password="secret")


def realm(*accounts: Account, **change: Any) -> Realm:
    return Realm("example.com", accounts or (ALICE,), KEY, **change)


def judge(value: str, where: Realm | None = None, now: float = NOW, replays: Replays | None = None) -> Outcome:
    return verify([value], "REGISTER", where or realm(), Replays() if replays is None else replays, now)


RFC_EXAMPLES = [
    pytest.param(
        'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", '
        'response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"',
        Account(username="Mufasa", password="Circle Of Life"),
        "6629fae49393a05397450978507c4ef1",
        id="RFC 2617 3.5",
    ),
    pytest.param(
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
        'response="8ca523f5e9506fed4657c9700eebdbec", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
        Account(username="Mufasa", password="Circle of Life"),
        "8ca523f5e9506fed4657c9700eebdbec",
        id="RFC 7616 3.9.1 MD5",
    ),
    pytest.param(
        'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
        'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"',
        Account(username="Mufasa", password="Circle of Life"),
        "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        id="RFC 7616 3.9.1 SHA-256",
    ),
    pytest.param(
        'Digest username="793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b", '
        'realm="api@example.org", uri="/doe.json", algorithm=SHA-512-256, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001, '
        'cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", qop=auth, userhash=true, '
        'response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"',
        Account(username="Jäsøn Doe", password="Secret, or not?"),
        "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
        id="RFC 7616 3.9.2 userhash, hashes of erratum 4897",
    ),
    pytest.param(
        "Digest username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, "
        'realm="api@example.org", uri="/doe.json", algorithm=SHA-512-256, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001, '
        'cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", qop=auth, userhash=false, '
        'response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"',
        Account(username="Jäsøn Doe", password="Secret, or not?"),
        "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
        id="RFC 7616 3.9.2 username*",
    ),
]


@pytest.mark.parametrize(("value", "account", "response"), RFC_EXAMPLES)
def test_rfc_examples(value: str, account: Account, response: str) -> None:
    credentials = Credentials.parse(value)
    assert credentials is not None and credentials.algorithm is not None
    where = Realm(credentials.realm, [account], KEY, ALL)
    ((found, secret),) = where.candidates(credentials, credentials.algorithm)
    assert found == account
    assert credentials.expected(credentials.algorithm, secret, "GET") == response
    # The password is right, but the nonce is the RFC's and not ours: the phone must not ask its user again.
    assert verify([value], "GET", where, Replays(), NOW).verdict is Verdict.STALE


@pytest.mark.parametrize("algorithm", ALL)
def test_challenge_and_answer(algorithm: Algorithm) -> None:
    where = realm(algorithms=[algorithm])
    (challenge,) = where.challenges(NOW, SALT)
    assert judge(answer(challenge, "alice", "secret"), where) == Outcome(verdict=Verdict.GRANTED, account=ALICE)
    assert judge(answer(challenge, "alice", "Secret"), where).verdict is Verdict.DENIED


def test_challenges_strongest_first_and_one_nonce() -> None:
    where = realm(algorithms=ALL, userhash=True)
    challenges = where.challenges(NOW, SALT, stale=True)
    assert [c.split("algorithm=")[1].split(",")[0] for c in challenges] == ["SHA-512-256", "SHA-256", "MD5"]
    assert all(c.startswith('Digest realm="example.com", nonce="') for c in challenges)
    assert all(c.endswith(', qop="auth", stale=true, userhash=true') for c in challenges)
    assert "stale" not in where.challenges(NOW, SALT)[0]


def test_utf8_names_and_passwords() -> None:
    where = Realm("exämple.com", [Account(username="jürgen", password="pässwörd")], KEY)
    challenge = where.challenges(NOW, SALT)[0].encode("latin-1").decode()
    assert judge(answer(challenge, "jürgen", "pässwörd"), where).verdict is Verdict.GRANTED
    assert judge(answer(challenge, "jürgen", "password"), where).verdict is Verdict.DENIED


def test_userhash() -> None:
    where = realm(userhash=True)
    challenge = where.challenges(NOW, SALT)[0]
    assert judge(answer(challenge, "alice", "secret", userhash="true"), where).account == ALICE
    assert judge(answer(challenge, "bob", "secret", userhash="true"), where).verdict is Verdict.DENIED


def test_ha1_instead_of_password_limits_the_offer() -> None:
    stored = Account(username="bob", ha1={Algorithm.MD5: digest(Algorithm.MD5, b"bob:example.com:pw").upper()})
    where = realm(ALICE, stored, algorithms=ALL)
    (challenge,) = where.challenges(NOW, SALT)
    assert "algorithm=MD5" in challenge
    assert judge(answer(challenge, "bob", "pw"), where).account == stored
    assert judge(answer(challenge, "alice", "secret"), where).account == ALICE


def test_one_name_in_two_domains() -> None:
    accounts = [Account(username="alice", domain=domain, password=domain) for domain in ("a.example", "b.example")]
    where = realm(*accounts)
    challenge = where.challenges(NOW, SALT)[0]
    for account in accounts:
        assert judge(answer(challenge, "alice", account.password), where).account == account
    assert judge(answer(challenge, "alice", "c.example"), where).verdict is Verdict.DENIED


CHALLENGE = realm().challenges(NOW, SALT)[0]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        pytest.param(answer(CHALLENGE, "alice", "secret"), Verdict.GRANTED, id="good"),
        pytest.param(answer(CHALLENGE, "alice", "secret").replace("Digest", "dIGEST"), Verdict.GRANTED, id="case"),
        pytest.param(
            answer(CHALLENGE, "alice", "secret").replace("SHA-256", '"sha-256"'), Verdict.GRANTED, id="quotes"
        ),
        pytest.param(answer(CHALLENGE, "alice", "secret").replace(", ", " ,\t"), Verdict.GRANTED, id="spaces"),
        pytest.param(answer(CHALLENGE, "mallory", "secret"), Verdict.DENIED, id="unknown user"),
        pytest.param(answer(CHALLENGE, "alice", "wrong"), Verdict.DENIED, id="wrong password"),
        pytest.param(answer(CHALLENGE, "alice", "secret", method="INVITE"), Verdict.DENIED, id="other method"),
        pytest.param(answer(CHALLENGE, "alice", "secret", response="\xff"), Verdict.DENIED, id="response is no hash"),
        pytest.param(answer(CHALLENGE, "alice", "secret", realm="other"), Verdict.MISSING, id="other realm"),
        pytest.param("Basic YWxpY2U6c2VjcmV0", Verdict.MISSING, id="other scheme"),
        pytest.param(answer(CHALLENGE, "alice", "secret", nonce="abc"), Verdict.STALE, id="nonce is not ours"),
        pytest.param(
            answer(CHALLENGE, "alice", "secret", nonce="0" * 28 + "\xff" * 16), Verdict.STALE, id="nonce is no ASCII"
        ),
        pytest.param(
            answer(realm(algorithms=[Algorithm.SHA_512_256]).challenges(NOW, SALT)[0], "alice", "secret"),
            Verdict.DENIED,
            id="algorithm not offered",
        ),
    ],
)
def test_verdicts(value: str, verdict: Verdict) -> None:
    assert judge(value).verdict is verdict


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(0.0, Verdict.GRANTED), (300.0, Verdict.GRANTED), (301.0, Verdict.STALE), (-10.0, Verdict.STALE)],
)
def test_nonce_age(age: float, verdict: Verdict) -> None:
    assert judge(answer(CHALLENGE, "alice", "secret"), now=NOW + age).verdict is verdict


def test_nonce_of_another_key_or_realm_is_stale() -> None:
    value = answer(CHALLENGE, "alice", "secret")
    assert judge(value, Realm("example.com", [ALICE], b"other")).verdict is Verdict.STALE
    foreign = answer(CHALLENGE, "alice", "secret", realm="example.net")
    assert judge(foreign, Realm("example.net", [ALICE], KEY)).verdict is Verdict.DENIED


def test_several_headers_any_good_one_counts() -> None:
    good, bad = answer(CHALLENGE, "alice", "secret"), answer(CHALLENGE, "alice", "wrong")
    for values in ([bad, good], [good, bad], ["Basic x", good]):
        assert verify(values, "REGISTER", realm(), Replays(), NOW).verdict is Verdict.GRANTED
    assert verify([], "REGISTER", realm(), Replays(), NOW).verdict is Verdict.MISSING


def test_a_nonce_count_is_used_once_and_may_come_late() -> None:
    replays = Replays()
    granted, stale = Verdict.GRANTED, Verdict.STALE
    steps = [(1, granted), (1, stale), (5, granted), (3, granted), (3, stale), (100, granted), (36, stale)]
    steps += [(37, granted), (37, stale), (0, stale), (2**31, granted), (100, stale)]
    for count, verdict in steps:
        value = answer(CHALLENGE, "alice", "secret", nc=f"{count:08x}")
        assert judge(value, replays=replays).verdict is verdict, count


def test_wrong_passwords_use_no_count_up() -> None:
    replays = Replays()
    assert judge(answer(CHALLENGE, "alice", "wrong"), replays=replays).verdict is Verdict.DENIED
    assert judge(answer(CHALLENGE, "alice", "secret"), replays=replays).verdict is Verdict.GRANTED


def test_the_table_is_bounded_and_what_it_forgot_is_no_longer_good() -> None:
    replays = Replays(limit=2)
    assert all(replays.accept(f"n{i}", NOW + i, 1) for i in range(4))
    assert len(replays) == 2
    assert not replays.accept("n0", NOW, 2)
    assert not replays.accept("n1", NOW + 1, 2)
    assert replays.accept("n3", NOW + 3, 2)
    replays.expire(NOW + 3)
    assert len(replays) == 1


BROKEN = [
    pytest.param("Digest", id="empty"),
    pytest.param("Digest username", id="no value"),
    pytest.param('Digest username="alice', id="open quote"),
    pytest.param('Digest username="alice" realm="example.com"', id="no comma"),
    pytest.param(answer(CHALLENGE, "alice", "secret") + ", nc=00000002", id="twice"),
    pytest.param(answer(CHALLENGE, "alice", "secret", nc="xyz"), id="nc no hex"),
    pytest.param(answer(CHALLENGE, "alice", "secret", qop="auth-int"), id="auth-int"),
    *(
        pytest.param(answer(CHALLENGE, "alice", "secret", **{name: None}), id=f"no {name}")
        for name in ("username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce")
    ),
]


@pytest.mark.parametrize("value", BROKEN)
def test_broken_headers_are_the_peers_fault(value: str) -> None:
    with pytest.raises(SipError) as error:
        judge(value)
    assert error.value.status == 400
    assert "Authorization" in str(error.value)


@given(st.text(st.characters(max_codepoint=255)).map(lambda text: f"Digest {text}"))
def test_no_text_raises_anything_else(value: str) -> None:
    with contextlib.suppress(SipError):
        assert judge(value).verdict in (Verdict.MISSING, Verdict.DENIED)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters='"\\,', exclude_categories=["C"]), min_size=1),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(ALL),
)
def test_whoever_knows_the_password_gets_in(username: str, password: str, algorithm: Algorithm) -> None:
    where = Realm("example.com", [Account(username=username, password=password)], KEY, [algorithm])
    challenge = where.challenges(NOW, SALT)[0]
    assert judge(answer(challenge, username, password), where).verdict is Verdict.GRANTED
    assert judge(answer(challenge, username, password + "x"), where).verdict is Verdict.DENIED


@pytest.mark.parametrize("junk", [" " * 60_000 + '"', "a=" + " " * 60_000 + 'x"', 'a="' + "\\" * 60_001, "a" * 60_000])
def test_long_junk_is_refused_at_once(junk: str) -> None:
    started = time.process_time()
    with pytest.raises(SipError):
        Credentials.parse("Digest " + junk)
    assert time.process_time() - started < 0.5

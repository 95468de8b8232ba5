"""The words and separators that all SIP headers share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.sip.grammar import (
    COMPACT,
    Params,
    canonical,
    element_spans,
    number,
    parse_params,
    quote,
    seconds,
    split_commas,
    split_params,
    unfold,
    unquote,
)
from tests.sip_corpus import quickly

latin = st.text(st.characters(max_codepoint=255), max_size=60)
punctuated = st.text(st.sampled_from('ab,;="\\<> \t\r\n'), max_size=30)
text = st.one_of(latin, punctuated)


def test_compact_names_are_those_of_iana() -> None:
    assert "".join(sorted(COMPACT)) == "abcdefijklmnorstuvxy"
    for letter, name in COMPACT.items():
        assert canonical(letter) == canonical(letter.upper()) == canonical(name.title()) == name


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", []),
        (" , ,, ", []),
        ("a", ["a"]),
        (" a , b,c ", ["a", "b", "c"]),
        ('"a,b" <sip:c>, d', ['"a,b" <sip:c>', "d"]),
        (r'"a\",b" <sip:c>,d', [r'"a\",b" <sip:c>', "d"]),
        (r'"a\\",b', [r'"a\\"', "b"]),
        ("<sip:a,b?c=d,e>,f", ["<sip:a,b?c=d,e>", "f"]),
        ('<sip:a"b>,"c', ['<sip:a"b>', '"c']),
        ('a;b="<",c>', ['a;b="<"', "c>"]),
        ("a,\r\n b\r\n\t,c", ["a", "b", "c"]),
        ('"never closed, b', ['"never closed, b']),
        ("<never closed, b", ["<never closed, b"]),
        ('"ends in\\', ['"ends in\\']),
    ],
)
def test_split_commas(value: str, parts: list[str]) -> None:
    assert split_commas(value) == parts


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("", [""]),
        (";a;b=1", ["", "a", "b=1"]),
        (' ; a = "x;y" ;b', [" ", ' a = "x;y" ', "b"]),
        (r';a="\";";b', ["", r'a="\";"', "b"]),
        (';a="open;b', ["", 'a="open;b']),
    ],
)
def test_split_params(value: str, pieces: list[str]) -> None:
    assert split_params(value) == pieces


@pytest.mark.parametrize(
    ("value", "one_line"),
    [
        ("  a  ", "a"),
        ("a\r\n b", "a b"),
        ("a  \r\n\t  b\n c", "a b c"),
        ("\r\n a\r\n \r\n b\r\n ", "a b"),
        ("\xa0a\x85", "\xa0a\x85"),
    ],
    ids=["outside", "fold", "spaces-around", "empty-lines", "bytes-of-utf-8-are-no-space"],
)
def test_unfold(value: str, one_line: str) -> None:
    assert unfold(value) == one_line


@pytest.mark.parametrize(
    ("value", "most", "expected"),
    [
        ("0", 9, 0),
        ("007", 9, 7),
        ("10", 9, None),
        ("9" * 5000, 2**64, None),
        ("0" * 5000 + "5", 9, 5),
        ("", 9, None),
        ("-1", 9, None),
        ("+1", 9, None),
        (" 1", 9, None),
        ("1_0", 99, None),
        ("²", 9, None),
        ("٣", 9, None),
    ],
)
def test_number(value: str, most: int, expected: int | None) -> None:
    assert number(value, most) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("3600", 3600),
        ("4294967296", 2**32 - 1),
        ("1" * 9999, 2**32 - 1),
        ("x", None),
        ("", None),
        (None, None),
    ],
)
def test_seconds(value: str | None, expected: int | None) -> None:
    assert seconds(value) == expected


def test_params_read() -> None:
    params = parse_params(' ;LR; Transport = "u;dp" ;tag=;tag=2;;x=a=b')
    assert list(params) == ["lr", "transport", "tag", "x"]
    assert params["lr"] == params["LR"] == ""
    assert params["TRANSPORT"] == '"u;dp"'
    assert params.get("tag") == "", "the first of two counts"
    assert params.get("x") == "a=b"
    assert params.get("none") is None and "none" not in params and "Lr" in params
    assert len(Params("")) == 0


@pytest.mark.parametrize(
    ("before", "name", "value", "after"),
    [
        ("", "a", "1", ";a=1"),
        ("", "a", None, ";a"),
        (";b=2", "a", "1", ";b=2;a=1"),
        (" ;\r\n b = 2\r\n ", "a", "1", " ;\r\n b = 2;a=1\r\n "),
        (";a;b", "a", "1", ";a=1;b"),
        ("; A = old ;b", "a", "new", "; A = new ;b"),
        (';A="o;ld";b', "a", "new", ";A=new;b"),
        ("; a = old ;b", "a", None, "; a ;b"),
        (";a=;b", "A", "1", ";a=1;b"),
        (";a=1;a=2", "a", "3", ";a=3;a=2"),
        (";;", "a", "1", ";;;a=1"),
    ],
)
def test_params_set(before: str, name: str, value: str | None, after: str) -> None:
    assert Params(before).with_param(name, value).text == after


@pytest.mark.parametrize(
    ("before", "name", "after"),
    [
        (";a;b=2;c", "b", ";a;c"),
        (" ; A = 1 ; b", "a", " ; b"),
        (";a=1;A=2;b", "a", ";b"),
        (";a", "b", ";a"),
        (';x="a;a";a', "a", ';x="a;a"'),
    ],
)
def test_params_removed(before: str, name: str, after: str) -> None:
    assert Params(before).without_param(name).text == after


@given(text)
def test_split_params_loses_nothing(value: str) -> None:
    assert ";".join(split_params(value)) == value


@given(text)
def test_elements_are_in_order_and_what_is_between_them_is_commas_and_space(value: str) -> None:
    end = 0
    for begin, stop in [*element_spans(value), (len(value), len(value))]:
        assert end <= begin <= stop
        assert not value[end:begin].strip(" \t\r\n,")
        end = stop
    assert "" not in split_commas(value)


@given(text, st.sampled_from(["a", "Tag", "+sip.instance"]), st.sampled_from([None, "", "1", '"x;y"']))
def test_a_param_that_was_set_is_there_and_the_others_stay(value: str, name: str, new: str | None) -> None:
    params = Params(";" + value)
    edited = params.with_param(name, new)
    if value.count('"') % 2 == 0 and "\\" not in value:
        assert edited[name] == (new or "")
        assert {k: v for k, v in edited.items() if k != name.lower()} == {
            k: v for k, v in params.items() if k != name.lower()
        }
        assert name not in edited.without_param(name)


@given(latin)
def test_unquote_undoes_quote(value: str) -> None:
    assert unquote(quote(value)) == value


@pytest.mark.parametrize(
    "evil",
    [
        '"' * 60000,
        '"\\' * 30000,
        "<" * 60000,
        ",\r\n " * 20000,
        " " * 60000 + "x\r\n y",
        "," * 60000,
        "a, " * 20000,
        ";=" * 30000,
    ],
    ids=range(8),
)
def test_long_evil_values_take_no_time(evil: str) -> None:
    with quickly():
        for read in (split_commas, split_params, unfold, Params):
            read(evil)

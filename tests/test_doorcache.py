"""Answers that are kept for requests that come again: how long, and how many."""

import pytest

from mediaproxy.dialects.doorcache import OVERHEAD, WAITERS, AnswerCache


def kept(cache: AnswerCache[str], key: str, answer: bytes, now: float) -> None:
    assert cache.find(key, now) is None
    assert not cache.waits(key, "somebody")
    cache.begin(key)
    assert cache.done(key, answer, now) == []


@pytest.mark.parametrize(
    ("asked", "later", "found"),
    [
        (0.0, 0.0, True),
        (0.0, 29.9, True),
        (0.0, 59.9, True),
        (0.0, 60.0, False),
        (0.0, 1000.0, False),
        (29.9, 59.9, True),
    ],
)
def test_an_answer_is_kept_for_half_a_minute_at_least_and_a_whole_one_at_most(
    asked: float, later: float, found: bool
) -> None:
    cache: AnswerCache[str] = AnswerCache()
    kept(cache, "first", b"1", 0.0)
    kept(cache, "key", b"answer", asked)
    assert (cache.find("key", later) == b"answer") is found


def test_an_answer_is_kept_for_half_a_minute_whenever_others_come() -> None:
    cache: AnswerCache[str] = AnswerCache()
    kept(cache, "key", b"answer", 0.0)
    for second in range(1, 31):
        kept(cache, f"other {second}", b"-", float(second))
        assert cache.find("key", float(second)) == b"answer"
    for second in range(31, 91):
        kept(cache, f"other {second}", b"-", float(second))
    assert cache.find("key", 91.0) is None
    assert len(cache) <= 61


def test_nobody_asks_for_long_and_nothing_old_is_found() -> None:
    cache: AnswerCache[str] = AnswerCache()
    kept(cache, "key", b"answer", 0.0)
    assert cache.find("key", 3600.0) is None
    assert len(cache) == 0


def test_memory_is_bounded_and_the_newest_half_is_always_there() -> None:
    cache: AnswerCache[str] = AnswerCache(most_bytes=100 * (OVERHEAD + 10))
    for number in range(1000):
        kept(cache, str(number), bytes(10), 0.0)
        assert len(cache) <= 102
        assert cache.find(str(max(0, number - 45)), 0.0) == bytes(10)
    assert cache.find("0", 0.0) is None


def test_a_repetition_waits_for_the_first_one() -> None:
    cache: AnswerCache[str] = AnswerCache()
    cache.begin("key")
    assert all(cache.waits("key", f"way {number}") for number in range(WAITERS + 5))
    assert cache.find("key", 0.0) is None
    assert cache.working == 1
    assert cache.done("key", b"answer", 0.0) == [f"way {number}" for number in range(WAITERS)]
    assert not cache.waits("key", "way")
    assert cache.find("key", 0.0) == b"answer"
    assert cache.working == 0


def test_what_has_no_answer_is_new_again() -> None:
    cache: AnswerCache[str] = AnswerCache()
    cache.begin("key")
    assert cache.done("key", None, 0.0) == []
    assert cache.find("key", 0.0) is None
    assert not cache.waits("key", "way")


def test_an_empty_answer_is_one() -> None:
    cache: AnswerCache[str] = AnswerCache()
    kept(cache, "key", b"", 0.0)
    assert cache.find("key", 1.0) == b""

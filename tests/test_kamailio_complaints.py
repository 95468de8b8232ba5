"""Lines of the log that would come too often."""

from mediaproxy.kamailio.complaints import AGAIN_AFTER, Complaints


def test_the_same_is_told_once_a_second_and_counted() -> None:
    now, told = [0.0], list[str]()
    complaints = Complaints(told.append, lambda: now[0])
    for number in range(10):
        complaints.about("media", f"line {number}")
    complaints.about("contact", "another")
    now[0] = AGAIN_AFTER
    complaints.about("media", "later")
    complaints.about("media", "not told")
    assert told == ["line 0", "another", "later (and 9 more like it)"]


def test_not_everything_is_remembered() -> None:
    told = list[str]()
    complaints = Complaints(told.append, lambda: 0.0)
    for number in range(1000):
        complaints.about(str(number), "line")
    assert len(complaints._quiet) <= 100

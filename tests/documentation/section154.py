"""1.5.4: natping_interval."""

import statistics
import time

from mediaproxy.nat import PING_SOON
from tests.documentation.house import PING, House
from tests.documentation.phone import ZEROS, Phone
from tests.documentation.row import Row, Section
from tests.documentation.section15 import default


def natted_phones_are_pinged(house: House) -> object:
    phones = [house.phone(nat=house.nat()) for _ in range(3)]
    public = house.phone()
    for phone in phones:
        phone.wait_until(lambda phone: len(phone.pings) >= 2)
    public.idle(2.5 * PING)
    what = {(data, source) for phone in phones for _, data, source in phone.pings}
    return [len(phone.pings) >= 2 for phone in phones], what == {(ZEROS, house.main.sip)}, len(public.pings)


def the_interval_is_in_seconds(house: House) -> object:
    """The time between two pings; the number of them in a while."""
    phone = house.phone(nat=house.nat())
    for _ in range(3):  # other work on the machine only adds delay
        phone.pings.clear()
        phone.idle(5.5 * PING)
        times = [at for at, _, _ in phone.pings]
        gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        found = abs(statistics.median(gaps or [0.0]) / PING - 1) < 0.25, 4 <= len(times) <= 7
        if all(found):
            break
    return found


def seconds_between_pings(house: House, name: str) -> float:
    """By how many pings the crowd of a configuration has got, in 20 s after those that come soon after a REGISTER.
    Kamailio's module looks every quarter of an interval who is registered, so the first ones may be late."""
    crowd = house.crowd(name)
    time.sleep(max(0.0, crowd.since + PING_SOON[1] + 1.0 - time.monotonic()))
    before, begin = sum(map(_pings, crowd.phones)), time.monotonic()
    time.sleep(20.0)
    count = sum(map(_pings, crowd.phones)) - before
    return len(crowd.phones) * (time.monotonic() - begin) / max(count, 1)


def _pings(phone: Phone) -> int:
    """Those of our module so far: nathelper's are known by their From."""
    phone.answers_options = False
    phone.catch_up()
    return len(phone.pings) + sum("ping@sipserver.net" not in got.get("From") for _, got in phone.asked)


def the_default_interval(house: House) -> object:
    return default(house, "natping_interval"), 45 < seconds_between_pings(house, "plain") < 110


def every_20_seconds(house: House) -> object:
    return 15 < seconds_between_pings(house, "examples") < 35


def none_at_all(house: House) -> int:
    """How many pings of ours came to a crowd of 60. By the default it would be one a second."""
    crowd = house.crowd("quiet")
    time.sleep(max(0.0, crowd.since + 20.0 - time.monotonic()))
    return sum(map(_pings, crowd.phones))


ROWS = (
    Row(
        1,
        "How often packets are sent to all registered clients behind a NAT, so that their channels stay open.",
        natted_phones_are_pinged,
        ([True] * 3, True, 0),
    ),
    Row(
        2,
        "It is an interval in seconds.",
        the_interval_is_in_seconds,
        (True, True),
    ),
    Row(
        3,
        "Its default is 60.",
        the_default_interval,
        (60, True),
        late=True,
    ),
    Row(
        4,
        "Example 1-4: set to 20.",
        every_20_seconds,
        True,
        late=True,
    ),
)
SECTION = Section("1.5.4 natping_interval", 4, ROWS)

"""[shell] The journal of the relay in this process, and the records of calls that an earlier process has not written.

Places and a relay that has not started come in; the relay knows its journal afterwards. A journal that cannot be had is
no reason not to start: the relay goes on without, and says so.
"""

import contextlib
import logging
from functools import partial

from mediaproxy.accounting import Ledger, Record
from mediaproxy.records import RecordReader, RecordWriter, record_of
from mediaproxy.relay.journal import Journal, JournalError
from mediaproxy.relay.resumption import Recorded
from mediaproxy.relay.service import RelayService
from mediaproxy.server.places import Places

log = logging.getLogger("mediaproxy")

_BEHIND = 1000
"Records by which a journal may be behind that could not be written for a while."


def open_journal(
    places: Places, relay: RelayService, ledger: Ledger, records: RecordWriter, *, wanted: bool
) -> Journal | None:
    """The journal, if there is one. ``wanted``: whether there should be; else what an earlier process has left ends."""
    if not wanted and not places.journal.exists():
        return None
    journal = Journal(places.journal, ledger)
    try:
        saved, lines = journal.open()
    except JournalError as error:
        log.error("%s: calls are not kept, so a restart ends them", error)
        return None
    known: set[Recorded] = set()
    if saved.calls or lines:
        reader = RecordReader(places.records)
        with contextlib.suppress(OSError):
            known = {_key(record) for record in reader.read(last=len(lines) + _BEHIND)}
    for number, line in lines.items():
        record = record_of(line)
        if record is None or _key(record) in known:
            journal.recorded(number)
        else:
            known.add(_key(record))
            records.write_line(line, partial(journal.recorded, number))
    relay.keep(journal, saved, known, go_on=wanted)
    return journal


def _key(record: Record) -> Recorded:
    return record.call_id, record.caller.tag, record.started

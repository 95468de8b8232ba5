"""What rtpengine's XML-RPC callback says of a call that has ended by itself, in one of three formats.

A report comes in, bodies of HTTP requests go out; the bodies of their answers are judged.
"""

import xmlrpc.client
from collections.abc import Iterator
from xml.parsers.expat import ExpatError

from mediaproxy.dialects.ng.settings import CallbackFormat
from mediaproxy.events import CallReport

HERE = "%%"
"In the URL: the address of the SIP server."
_GONE = "dialog not found"
"A fault that says that there is nothing left to end."


def bodies(report: CallReport, form: CallbackFormat) -> Iterator[bytes]:
    """The bodies of the requests, one after the other."""
    for method, parameters in calls_of(report, form):
        yield xmlrpc.client.dumps(tuple(map(_text, parameters)), method, encoding="utf-8").encode()


def calls_of(report: CallReport, form: CallbackFormat) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Methods and their parameters."""
    callees = dict.fromkeys((report.callee.tag, *(stream.leg for stream in report.streams)))
    tags = [tag for tag in dict.fromkeys((report.caller.tag, *callees)) if tag]
    match form:
        case CallbackFormat.SEMS:
            for tag in tags:
                yield "di", ("sbc", "postControlCmd", tag, "teardown")
        case CallbackFormat.CALL_ID:
            yield "teardown", (report.call_id,)
        case CallbackFormat.KAMAILIO:
            for tag in tags[1:]:
                yield "dlg.terminate_dlg", (report.call_id, report.caller.tag, tag)


def judge(answer: bytes) -> None:
    """ValueError if the answer is a fault, or no answer of XML-RPC."""
    try:
        xmlrpc.client.loads(answer)
    except xmlrpc.client.Fault as fault:
        if _GONE not in fault.faultString.lower():
            raise ValueError(f"the SIP server says: {fault.faultString}") from fault
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"no answer of XML-RPC: {error}") from error


def _text(text: str) -> str:
    """A peer's text as XML has it."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text

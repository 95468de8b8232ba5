"""rtpproxy's control protocol, version 20040107: what Kamailio's and OpenSIPS' module ``rtpproxy`` and B2BUAs speak.

    [COOKIE] VERB[modifiers] argument…

One command per datagram, which begins with a cookie, or per line or write of a connection, which has none. ``command``
reads one, ``modifiers`` what stands behind the verb of U and L; ``media``, ``sessions`` and ``numbers`` answer. Bytes
are Latin-1 text, so that any byte of a Call-ID or tag survives.
"""

from mediaproxy.dialects.rtpproxy.dialect import RtpProxy
from mediaproxy.dialects.rtpproxy.notifier import RtpProxyNotifier

__all__ = ["RtpProxy", "RtpProxyNotifier"]

"""Who tells SIP servers of calls that end by themselves, as it is configured."""

from mediaproxy.config import Config
from mediaproxy.dialects.dialogs import RpcAddress
from mediaproxy.dialects.dlgend import DialogEnder
from mediaproxy.dialects.notices import Notices
from mediaproxy.dialects.rtpproxy.notifier import RtpProxyNotifier
from mediaproxy.dialects.xmlrpc import XmlRpcNotifier


def notices_of(config: Config) -> Notices:
    """With all notifiers that the configuration names an address for; rtpproxy's come with calls."""
    notices = Notices([RtpProxyNotifier(config.rtpproxy.timeout_sockets)])
    if config.dispatcher.end_dialogs:
        notices.add(DialogEnder(RpcAddress.parse(config.dispatcher.end_dialogs)))
    if config.ng.callback_url:
        notices.add(XmlRpcNotifier(config.ng.callback_url, config.ng.callback_format))
    return notices

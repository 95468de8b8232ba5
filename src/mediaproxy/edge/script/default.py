"""The routing of mediaproxy's own SIP server, and the example for a routing of your own:

    mediaproxy script > routing.py
    mediaproxy run --script routing.py

What the functions do, where they may be called and what they return: docs/script.md.
"""

WITH_MEDIA = ("INVITE", "ACK", "UPDATE", "PRACK")
BEGIN_DIALOGS = ("INVITE", "SUBSCRIBE", "REFER", "NOTIFY")


def request_route(msg):
    """Every request, but those that the server answers by itself: wrong ones, and those to the server."""
    # A phone behind NAT is answered where it sent from, and others are told to reach it there. What came through
    # another server tells nothing of the phone's NAT.
    if msg.direct and client_nat_test():
        setflag(NAT_FLAG)  # if this registers it, it gets keep-alives
        force_rport()
        fix_contact()

    # With a Route, it is for another server.
    if msg.method == "REGISTER" and not msg.header("Route"):
        save()
        return

    # The call is over: its ports are freed, its record is written.
    if msg.method in ("BYE", "CANCEL"):
        end_media_session()

    # Within a dialog, Route says where to. What begins one shall come back here.
    if not msg.to_tag:
        if msg.method in BEGIN_DIALOGS:
            record_route()
        lookup()

    # Without the relay they would hear nothing: better say so at once.
    if msg.method in WITH_MEDIA and use_media_proxy() == -1 and msg.method != "ACK":
        sl_reply_error()
        return

    if not t_relay():
        sl_reply_error()


def onreply_route(msg):
    """Every reply above 100, before it is sent back."""
    # The Contacts of a redirection, or of a registrar elsewhere, are those of others.
    if msg.status >= 300 or msg.method == "REGISTER":
        return
    if (msg.direct and client_nat_test("1")) or is_natted():
        fix_contact()
    if msg.method in WITH_MEDIA:
        use_media_proxy()


def failure_route(msg):
    """A request that has failed at all phones, before its sender is told."""
    # A re-INVITE that is refused leaves the call as it was.
    if msg.method == "INVITE" and not msg.to_tag:
        end_media_session()

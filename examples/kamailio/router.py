"""Routing of a registrar and proxy for phones behind NAT: the example of the original's documentation, for Kamailio.

Kamailio calls the ``ksr_*`` methods. The four functions of mediaproxy are methods of the base class; like KSR's own
they return 1, or a negative number if not. ``if self.fix_contact(msg):`` is true for 1 only.
"""

import KSR

import mediaproxy.kamailio

SETTINGS = {
    # Where `mediaproxy run` listens. All settings with their defaults: docs/kamailio.md.
    "mediaproxy_socket": "/var/run/proxydispatcher.sock",
}

NATED = 6
"""Branch flag of a contact behind NAT: usrloc's nat_bflag in kamailio.cfg. It is kept with the registration:
lookup() gives it to the branch."""

CALLER_NATED, CALLEE_NATED = "nata", "natb"
"""Marks in our Record-Route. The phones send it back in each request of the dialog, so we know them again."""


class Router(mediaproxy.kamailio.Module):
    """One per Kamailio process."""

    # -- requests

    def ksr_request_route(self, msg):
        if KSR.maxfwd.process_maxfwd(10) < 0:
            return KSR.sl.send_reply(483, "Too Many Hops")
        if KSR.is_REGISTER():
            return self.register(msg)
        if KSR.is_BYE() or KSR.is_CANCEL():
            self.end_media_session(msg)
        if KSR.is_CANCEL():
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        if KSR.siputils.has_totag() > 0:
            return self.within_dialog(msg)
        if KSR.is_ACK():
            return 1
        if KSR.tm.t_check_trans() == 0:
            return 1  # a retransmission: the transaction answers
        return self.initial(msg)

    def register(self, msg):
        if self.repair(msg):
            KSR.setbflag(NATED)
        # Your authentication belongs here.
        if KSR.registrar.save("location", 0) < 0:
            KSR.sl.sl_reply_error()
        return 1

    def within_dialog(self, msg):
        if KSR.rr.loose_route() < 0:
            if KSR.is_ACK():
                if KSR.tm.t_check_trans() > 0:
                    KSR.tm.t_relay()
                return 1
            return KSR.sl.send_reply(404, "Not Here")
        if not KSR.is_ACK():  # nobody answers it, and it has no Contact
            self.repair_known(msg)
        return self.relay(msg)

    def repair_known(self, msg):
        """As ``repair``, within a dialog: only who is known, for others may have a proxy before them that does not show
        here."""
        forth = KSR.rr.is_direction("downstream") > 0  # from the caller to the callee
        sender, receiver = (CALLER_NATED, CALLEE_NATED) if forth else (CALLEE_NATED, CALLER_NATED)
        if self.is_marked(sender) or self.client_nat_test(msg, "1"):
            self.force_rport(msg)
            self.fix_contact(msg)
        if self.is_marked(receiver):
            KSR.setbflag(NATED)

    def is_marked(self, mark):
        return KSR.rr.check_route_param(f";{mark}(;|$)") > 0

    def initial(self, msg):
        nated = self.repair(msg)
        if KSR.is_INVITE() or KSR.is_SUBSCRIBE():
            KSR.rr.record_route()
            if nated:
                KSR.rr.add_rr_param(f";{CALLER_NATED}")
            KSR.tm.t_on_branch("ksr_branch_mark")
        if not KSR.is_myself_ruri():
            return KSR.sl.send_reply(403, "Not Our Domain")
        if KSR.pv.is_null("$rU"):
            return KSR.sl.send_reply(200, "OK") if KSR.is_OPTIONS() else KSR.sl.send_reply(484, "Address Incomplete")
        if KSR.registrar.lookup("location") < 0:
            return KSR.sl.send_reply(404, "Not Found")
        return self.relay(msg)

    def repair(self, msg):
        """Who is behind NAT is answered where it sent from, and its Contact says so, too. Whether the sender is."""
        if KSR.hdr.is_present("Record-Route") > 0:  # there is a proxy before us
            return False
        # Not only private addresses: a phone may tell a public one that it has no more.
        if not (self.client_nat_test(msg, "3") or self.nat_test(msg, "contact-differs")):
            return False
        self.force_rport(msg)
        self.fix_contact(msg)
        return True

    def relay(self, msg):
        if KSR.is_method_in("IAU") or KSR.is_PRACK():  # INVITE, ACK, UPDATE, PRACK: they may bring SDP
            if not KSR.is_ACK() or KSR.textops.has_body() > 0:  # without SDP an ACK says nothing that the 200 has not
                self.use_media_proxy(msg)
            if not KSR.is_ACK():
                KSR.tm.t_on_reply("ksr_onreply_media")
        elif KSR.is_SUBSCRIBE():
            KSR.tm.t_on_reply("ksr_onreply_contact")
        if KSR.is_INVITE():
            KSR.tm.t_on_failure("ksr_failure_media")
        if KSR.tm.t_relay() < 0:
            if KSR.is_INVITE():
                self.end_media_session(msg)
            KSR.sl.sl_reply_error()
        return 1

    def ksr_branch_mark(self, msg):
        if KSR.isbflagset(NATED):
            KSR.rr.add_rr_param(f";{CALLEE_NATED}")
        return 1

    # -- what comes back

    def ksr_onreply_media(self, msg):
        status = KSR.pv.get("$rs")
        if status < 200 and KSR.textops.has_body() < 0 and KSR.hdr.is_present("RSeq") < 0:
            return 1  # it rings: nothing for us
        self.ksr_onreply_contact(msg)
        self.use_media_proxy(msg)  # of a failure the relay is told
        return 1

    def ksr_onreply_contact(self, msg):
        # A gateway that is not behind NAT may answer from another port than it listens on: its Contact is left alone.
        if KSR.pv.get("$rs") < 300 and (KSR.isbflagset(NATED) or self.client_nat_test(msg, "1")):
            self.fix_contact(msg)
        return 1

    def ksr_failure_media(self, msg):
        self.end_media_session(msg)
        return 1


def mod_init():
    return Router(**SETTINGS)

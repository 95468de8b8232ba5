"""The shipped router of Kamailio, and what a message itself wants: runs inside Kamailio.

A request or a reply with ``X-Run: client_nat_test=3 fix_contact`` is not routed as the example does: these words run in
its route, each a function with its argument behind ``=``; ``#3`` is a number. ``X-Branch`` and ``X-Failure`` of a
request are for its other routes. What each word returned is a line of the journal.
"""

from typing import Any

import KSR
import router  # type: ignore[import-not-found] # examples/kamailio, where the script finds it

OURS = (
    *("client_nat_test", "nat_test", "nat_uac_test", "fix_contact", "use_media_proxy", "end_media_session"),
    *("add_contact_alias", "handle_ruri_alias", "ice_candidate", "force_rport"),
)


class Probe(router.Router):  # type: ignore[misc] # see above
    def __init__(self, journal: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.path = journal

    def run_words(self, msg: Any, route: str, header: str) -> int:
        for word in (KSR.pv.get(f"$hdr({header})") or "").split():
            name, _, text = word.partition("=")
            arguments = [int(text[1:]) if text.startswith("#") else text] if text else []
            code = getattr(self, name)(msg, *arguments) if name in OURS else getattr(self, f"do_{name}")(*arguments)
            call_id = self.host.text("$ci").encode("latin-1").hex()
            with open(self.path, "a") as journal:
                journal.write(f"{call_id} {route} {word} {int(code)} {bool(code)}\n")
        return 1

    # -- routes

    def ksr_request_route(self, msg: Any) -> Any:
        if KSR.hdr.is_present("X-Run") < 0:
            return super().ksr_request_route(msg)
        if KSR.is_REGISTER():
            return self.run_words(msg, "request_route", "X-Run")
        return self.routed(msg)

    def routed(self, msg: Any) -> int:
        within = KSR.siputils.has_totag() > 0
        if within:
            KSR.rr.loose_route()
        self.run_words(msg, "request_route", "X-Run")
        if KSR.is_CANCEL():
            return int(KSR.tm.t_relay()) if KSR.tm.t_check_trans() > 0 else 1
        if not within:
            KSR.rr.record_route()
            if KSR.registrar.lookup("location") < 0:
                return int(KSR.sl.send_reply(404, "Not Found"))
        KSR.tm.t_on_reply("ksr_onreply_media")
        if KSR.hdr.is_present("X-Branch") > 0:
            KSR.tm.t_on_branch("ksr_branch_probe")
        if KSR.hdr.is_present("X-Failure") > 0:
            KSR.tm.t_on_failure("ksr_failure_media")
        KSR.tm.t_relay()
        return 1

    def ksr_onreply_media(self, msg: Any) -> Any:
        if KSR.hdr.is_present("X-Run") < 0:
            return super().ksr_onreply_media(msg)
        return self.run_words(msg, "onreply_route", "X-Run")

    def ksr_branch_probe(self, msg: Any) -> int:
        return self.run_words(msg, "branch_route", "X-Branch")

    def ksr_failure_media(self, msg: Any) -> Any:
        if KSR.hdr.is_present("X-Failure") < 0:
            return super().ksr_failure_media(msg)
        return self.run_words(msg, "failure_route", "X-Failure")

    # -- Kamailio's own functions

    def do_setflag(self, flag: str) -> int:
        KSR.setbflag(int(flag))
        return 1

    def do_save(self) -> Any:
        return KSR.registrar.save("location", 0)

    def do_save_or_error(self) -> Any:
        code = KSR.registrar.save("location", 0)
        if code < 0:
            KSR.sl.sl_reply_error()
        return code

    def do_mark(self, name: str) -> Any:
        return KSR.hdr.append(f"{name}: yes\r\n")

    def do_isflagset(self, flag: str) -> int:
        return 1 if KSR.isbflagset(int(flag)) else -1

    def do_nathelper(self, flags: str) -> Any:
        return KSR.nathelper.nat_uac_test(int(flags))

"""The routing script of the tests: a message itself says, in X- headers, what each route does to it.

Runs inside Kamailio. ``X-Request: record_route fix_contact append media`` is a list of words, each a method below, with
its argument behind ``=``. ``X-Reply``, ``X-Branch`` and ``X-Failure`` of the request are those of its other routes.
What each word returns is a line in the log: ``RESULT <Call-ID> <route> <word> <code>``.
"""

import sys
import time
from typing import Any

import KSR

import mediaproxy.kamailio


class Cases(mediaproxy.kamailio.Module):
    def words(self, msg: Any, route: str, header: str) -> int:
        words = (KSR.pv.get(header) or "").split()
        for word in words:
            name, _, argument = word.partition("=")
            before = time.perf_counter()
            result = getattr(self, "do_" + name)(msg, *([argument] if argument else []))
            took = round((time.perf_counter() - before) * 1e6)
            call_id = self.host.text("$ci").encode("latin-1").hex()
            KSR.info(f"RESULT {call_id} {route} {word} {int(result)} {took}\n")
        return 1

    # -- routes

    def ksr_request_route(self, msg: Any) -> Any:
        if KSR.is_ACK() and KSR.hdr.is_present("X-Request") < 0:
            KSR.tm.t_relay()
            return 1
        if KSR.pv.is_null("$rU") and KSR.is_OPTIONS():
            return KSR.sl.send_reply(200, "OK")
        KSR.tm.t_on_reply("ksr_onreply_cases")
        if KSR.hdr.is_present("X-Branch") > 0:
            KSR.tm.t_on_branch("ksr_branch_cases")
        if KSR.hdr.is_present("X-Failure") > 0:
            KSR.tm.t_on_failure("ksr_failure_cases")
        self.words(msg, "request", "$hdr(X-Request)")
        if KSR.hdr.is_present("X-No-Relay") < 0:
            KSR.tm.t_relay()
            self.words(msg, "relayed", "$hdr(X-Relayed)")
        return 1

    def ksr_reply_route(self, msg: Any) -> int:
        return self.words(msg, "core", "$T_req($hdr(X-Core))")

    def ksr_onreply_cases(self, msg: Any) -> int:
        return self.words(msg, "reply", "$T_req($hdr(X-Reply))")

    def ksr_branch_cases(self, msg: Any) -> int:
        return self.words(msg, "branch", "$hdr(X-Branch)")

    def ksr_later(self, msg: Any) -> int:
        self.words(msg, "later", "$hdr(X-Later)")
        KSR.tm.t_relay()
        return 1

    def ksr_failure_cases(self, msg: Any) -> int:
        KSR.tm.t_on_reply("ksr_onreply_cases")
        if KSR.hdr.is_present("X-Branch") > 0:
            KSR.tm.t_on_branch("ksr_branch_cases")
        return self.words(msg, "failure", "$hdr(X-Failure)")

    # -- words: our functions

    def do_test(self, msg: Any, number: str) -> int:
        return self.client_nat_test(msg, number)

    def do_named(self, msg: Any, name: str) -> int:
        return self.nat_test(msg, name)

    def do_uac(self, msg: Any, number: str) -> int:
        return self.nat_uac_test(msg, number)

    def do_fix_contact(self, msg: Any) -> int:
        return self.fix_contact(msg)

    def do_alias(self, msg: Any) -> int:
        return self.add_contact_alias(msg)

    def do_ruri(self, msg: Any) -> int:
        return self.handle_ruri_alias(msg)

    def do_ice(self, msg: Any, policy: str) -> int:
        return self.ice_candidate(msg, policy)

    def do_media(self, msg: Any) -> int:
        return self.use_media_proxy(msg)

    def do_end(self, msg: Any) -> int:
        return self.end_media_session(msg)

    # -- words: Kamailio's own

    def do_record_route(self, msg: Any) -> Any:
        return KSR.rr.record_route()

    def do_append(self, msg: Any, name: str) -> Any:
        return KSR.hdr.append(f"{name}: appended\r\n")

    def do_remove(self, msg: Any, name: str) -> Any:
        return KSR.hdr.remove(name)

    def do_apply(self, msg: Any) -> Any:
        return KSR.textopsx.msg_apply_changes()

    def do_rport(self, msg: Any) -> Any:
        return KSR.force_rport()

    def do_suspend(self, msg: Any) -> Any:
        return getattr(KSR, "async").ms_route("ksr_later", 100)

    def do_fork(self, msg: Any, target: str) -> Any:
        return KSR.corex.append_branch_uri("sip:" + target)

    def do_retry(self, msg: Any, target: str) -> Any:
        if KSR.tm.t_get_branch_index() > 2:
            return 1
        KSR.tm.t_on_failure("ksr_failure_cases")
        KSR.pv.sets("$ru", "sip:" + target)
        KSR.pv.sets("$du", "sip:" + target.partition("@")[2])
        return KSR.tm.t_relay()

    def do_set(self, msg: Any, text: str) -> Any:
        name, _, value = text.partition("=")
        KSR.pv.sets(f"$avp({name})", value)
        return 1

    def do_save(self, msg: Any) -> Any:
        return KSR.registrar.save("location", 0)

    def do_raise(self, msg: Any, name: str = "ValueError") -> Any:
        raise {"ValueError": ValueError, "SystemExit": SystemExit, "RecursionError": RecursionError}[name]("on purpose")

    def do_none(self, msg: Any) -> Any:
        return 1

    def do_exit(self, msg: Any) -> Any:
        sys.exit(3)

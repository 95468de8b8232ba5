/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Packets that are not forwarded here: passed up or dropped.
 */
#pragma once
#include "packet.bpf.h"
#include "rules.bpf.h"

/* Whether no relay is alive. */
INLINE int gone(const struct control *c, u64 now)
{
    return now > c->heartbeat && now - c->heartbeat > c->alive;
}

/* Pass up, or drop because nobody is there or enough were passed up. */
CALLED int pass_up(struct control *c, struct counters *n, int ranked, u32 reason, u64 now)
{
    u32 zero = 0;
    struct totals *t = map_lookup(&totals, &zero);

    if (!t)
        return TC_DROP;
    if (gone(c, now))
        return drop(REASON_NO_PROCESS);
    if (ranked ? !take(&n->ranked, &c->ranked, now)
               : !take(&n->strangers, &c->strangers, now) || !take(&t->strangers, &c->spray, now)) {
        __sync_fetch_and_add(&n->dropped, 1);
        return drop(ranked ? REASON_FLOOD : REASON_REFUSED);
    }
    n->passed++;
    count(reason);
    return TC_NEXT;
}

/* A packet from elsewhere. */
INLINE int judge(struct control *c, const struct packet *p, const struct slot *s, u64 word, struct counters *n, u64 now)
{
    const struct config *k = active(s, word);
    int ranked = state_of(word) >= STATE_LEARNING && allowed(k, p->source);
    u32 reason = REASON_UP;

    begin(n, (u32)word);
    if (ranked && k->flags & FLAG_SETTLED)
        ranked = may_move(c, n, p, now);
    if (READ_ONCE(s->word) != word) {
        ranked = 1;
        reason = REASON_UP_CHANGED;
    }
    return pass_up(c, n, ranked, reason, now);
}


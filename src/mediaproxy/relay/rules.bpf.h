/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Who may pass up (calls.md 6, 13), and what the packets of a source tell (RFC 3550): the kernel program and fastpath.c
 * follow the same rules. The one that includes this has defined struct packet.
 */
#pragma once
#include "layout.bpf.h"

/* -- who may pass up (calls.md 6, 13) */

INLINE int take(u64 *full, const struct bucket *b, u64 now)
{
    u64 at = *full > now ? *full : now;

    if (at - now > b->burst)
        return 0;
    *full = at + b->interval;
    return 1;
}

INLINE int allowed(const struct config *k, const u32 *ip)
{
    u32 i, j;

    if (k->flags & FLAG_ANY)
        return 1;
    UNROLL
    for (i = 0; i < PREFIXES; i++) {
        s32 left = k->bits[i];
        u32 differs = 0;

        if (!left)
            continue;
        UNROLL
        for (j = 0; j < 4; j++, left -= 32) {
            u32 mask = left >= 32 ? ~0u : left > 0 ? be32(~0u << (32 - left)) : 0;

            differs |= (ip[j] ^ k->allowed[i][j]) & mask;
        }
        if (!differs)
            return 1;
    }
    return 0;
}

/* Whether a packet of the source must be seen by user space: RTCP that leaves elsewhere, ICE checks (RFC 7983). Of several
 * that the kernel carries as one only the first has been looked at. */
INLINE int aside(const struct config *k, const struct packet *p)
{
    return k->flags & FLAG_RTP_ONLY && (!p->is_rtp || p->segments != 1);
}

/* calls.md 6: whether a packet of another port can replace a settled source. */
INLINE int may_move(struct control *c, struct counters *n, const struct packet *p, u64 now)
{
    u16 ahead = (u16)(p->rtp[0] - n->sequence);

    if (now - n->last >= c->silence)
        return 1;
    return p->is_rtp && n->payload_type & 128 && p->rtp[2] == n->ssrc && ahead >= 1 && ahead <= c->ahead;
}

INLINE void begin(struct counters *n, u32 generation)
{
    if (n->generation == generation)
        return;
    n->packets = n->bytes = n->last = n->arrived = 0;
    n->rtp = n->lost = n->jitter = n->tick = n->ssrc = n->timestamp = 0;
    n->sequence = n->payload_type = n->change = 0;
    n->undeliverable = n->undeliverable_bytes = n->dropped = n->passed = n->ranked = n->strangers = 0;
    n->generation = generation;
}

/* -- what a packet from the source tells (RFC 3550 6.4.1, A.1, A.3, A.8) */

/* Sequence numbers that a packet can be ahead or behind. Who is farther has begun anew: nothing was lost. */
enum { DROPOUT = 3000 };

CALLED u32 tick_of(const struct config *k, u8 payload_type)
{
    u32 i;

    UNROLL
    for (i = 0; i < CLOCKS; i++) {
        u32 clock = k->clocks[i];

        if ((clock & 127) == payload_type)
            return clock >> 7;
    }
    return 0;
}

INLINE void hear_rtp(struct counters *n, const struct config *k, const struct packet *p, u8 change, u64 now)
{
    u8 payload_type = p->rtp[0] >> 16 | 128;
    u16 sequence = p->rtp[0], ahead = (u16)(sequence - n->sequence);
    u32 timestamp = p->rtp[1], ssrc = p->rtp[2], tick = n->tick;
    u16 more = p->segments - 1; /* in sequence, one hopes */
    int again, follows = n->payload_type & 128 && n->ssrc == ssrc && (u16)(ahead + DROPOUT) < 2 * DROPOUT;

    if (n->payload_type != payload_type || n->change != change) {
        tick = tick_of(k, payload_type & 127);
        n->change = change;
    }
    again = follows && tick == n->tick && timestamp == n->timestamp;
    if (follows && tick && tick == n->tick && !again) {
        s64 apart = (s64)(now - n->arrived) - ((s64)(s32)(timestamp - n->timestamp) * tick >> 5);
        u64 off = apart < 0 ? -apart : apart;
        u64 jitter = n->jitter + (off > 0xfffffff ? 0xfffffff : off) - ((n->jitter + 8) >> 4);

        n->jitter = jitter > 0xffffffff ? 0xffffffff : jitter;
    }
    if (!follows || ahead < DROPOUT) {
        n->lost += follows ? (s32)ahead - 1 : 0;
        n->sequence = sequence + more;
    } else {
        n->lost -= p->segments; /* late: they were counted as lost when their successor came */
    }
    n->rtp += p->segments;
    n->tick = tick;
    if (!again) /* a picture, or a digit that is pressed for long, came when its first packet did */
        n->arrived = now;
    n->ssrc = ssrc;
    n->timestamp = timestamp;
    n->payload_type = payload_type;
}

INLINE void hear(struct counters *n, const struct config *k, const struct packet *p, u8 change, u64 now)
{
    n->last = now;
    if (p->is_rtp)
        hear_rtp(n, k, p, change, now);
}

INLINE const struct config *active(const struct slot *s, u64 word)
{
    u64 copy = word >> 32 & 1;

    opaque(copy); /* a product: the verifier would take a choice for two pointers */
    return (const struct config *)((const u8 *)s->copies + copy * sizeof(struct config));
}

INLINE int state_of(u64 word)
{
    return word >> 40 & 255;
}

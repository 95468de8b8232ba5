/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Packets from a learned source: where they go, and the bytes that leave.
 */
#pragma once
#include "judge.bpf.h"

/* -- writing */

/* The UDP checksum after a change of addresses and ports, in a state where the field holds a whole checksum. */
INLINE u16 new_checksum(const struct packet *p, const struct route *r, u32 addresses)
{
    u64 sum = (u64)(u16)~p->checksum + addresses + (u16)~p->source_port + (u16)~p->destination_port + r->source_port +
              r->target_port;
    u16 checksum = ~fold16(sum);

    return checksum ? checksum : 0xffff;
}

INLINE void build_ipv4(u32 *h, const struct packet *p, const struct route *r, u8 ttl, u8 tos)
{
    int same_version = p->version == 4;
    u32 length = same_version ? p->ip_length : p->ip_length - IPV6 + IPV4;

    h[0] = be32(0x45000000 | (u32)tos << 16 | length);
    h[1] = same_version ? p->head[1] : be32(0x4000); /* don't fragment, no identification (RFC 6864) */
    h[2] = be32((u32)ttl << 24 | PROTO_UDP << 16);
    h[3] = r->source[3];
    h[4] = r->target[3];
    h[2] |= be32((u32)be16((u16)~fold16(sum5(h))));
}

INLINE void build_ipv6(u32 *h, const struct packet *p, const struct route *r, u8 ttl, u8 tos)
{
    int same_version = p->version == 6;
    u32 length = same_version ? p->ip_length - IPV6 : p->ip_length - IPV4;

    h[0] = be32(0x60000000 | (u32)tos << 20 | (same_version ? be32(p->head[0]) & 0xfffff : 0));
    h[1] = be32(length << 16 | PROTO_UDP << 8 | ttl);
    copy(h + 2, r->source);
    copy(h + 6, r->target);
}

/* How the sum of the addresses changes. */
INLINE u32 readdress(const struct packet *p, const struct route *r)
{
    int v4 = !(r->flags & FLAG_V6);

    return fold32(pseudo(r->source, v4) + pseudo(r->target, v4) +
                  (u64)(u32)~fold32(pseudo(p->source, p->version == 4)) +
                  (u32)~fold32(pseudo(p->destination, p->version == 4)));
}

union headers {
    u32 words[12];
    u16 halves[24];
};

/* The IP and UDP headers that leave; their size. The checksum is the new one if the old one is whole. */
INLINE u32 build(union headers *h, const struct packet *p, const struct route *r, u8 ttl, u32 addresses)
{
    u8 tos = r->flags & FLAG_TOS ? (r->tos & 0xfc) | (p->tos & 3) : p->tos;
    u16 checksum = p->whole && p->checksum ? new_checksum(p, r, addresses) : p->checksum;

    if (r->flags & FLAG_V6) {
        build_ipv6(h->words, p, r, ttl, tos);
        h->halves[20] = r->source_port;
        h->halves[21] = r->target_port;
        h->halves[22] = be16(p->length);
        h->halves[23] = checksum;
        return IPV6;
    }
    build_ipv4(h->words, p, r, ttl, tos);
    h->halves[10] = r->source_port;
    h->halves[11] = r->target_port;
    h->halves[12] = be16(p->length);
    h->halves[13] = checksum;
    return IPV4;
}

/* Write the headers; the packet already has the right IP version. 0: done. */
INLINE int rewrite(struct __sk_buff *skb, u32 at, const struct packet *p, const struct route *r, u8 ttl)
{
    u32 ports = fold32((u64)r->source_port + r->target_port + (u32)~p->source_port + (u32)~p->destination_port);
    u32 addresses = readdress(p, r), size;
    union headers h;

    size = build(&h, p, r, ttl, addresses);
    if (size == IPV6 ? skb_store_bytes(skb, at, &h, IPV6 + UDP, 0) : skb_store_bytes(skb, at, &h, IPV4 + UDP, 0))
        return -1;
    if (p->whole || !p->checksum)
        return 0;
    /* The field holds the sum of the pseudo header (CHECKSUM_PARTIAL) or a whole checksum; the kernel knows. */
    if (l4_csum_replace(skb, at + size + 6, 0, addresses, PSEUDO_HEADER | ZERO_STAYS_ZERO))
        return -1;
    return l4_csum_replace(skb, at + size + 6, 0, ports, ZERO_STAYS_ZERO) ? -1 : 0;
}

/* -- forwarding */

enum { HOPS = SHORTCUTS + 1 }; /* slots that a packet may come to */

/* Where a packet that came from the source of slot `from` goes. 0, or the reason why it cannot be forwarded. */
INLINE u32 find_route(struct control *c, const struct slot *from, u64 word, struct route *r)
{
    const struct config *k = active(from, word);
    u32 peer = k->peer, generation = k->peer_generation;
    const struct slot *to = map_lookup(&slots, &peer);
    u64 to_word;

    if (!to)
        return REASON_UNDELIVERABLE;
    to_word = READ_ONCE(to->word);
    k = active(to, to_word);
    if (state_of(to_word) < STATE_LEARNING || (u32)to_word != generation || !(k->flags & FLAG_TARGET))
        return READ_ONCE(from->word) == word ? REASON_UNDELIVERABLE : REASON_UP_CHANGED;
    copy(r->source, c->addresses[k->address & (ADDRESSES - 1)]);
    copy(r->target, k->target);
    r->source_port = be16(c->port_min + peer - k->address * c->ports);
    r->target_port = k->target_port;
    r->ifindex = k->ifindex;
    r->mtu = k->mtu;
    r->flags = k->flags;
    r->tos = k->tos;
    r->via = k->via;
    copy(r->gateway, k->gateway);
    barrier();
    return READ_ONCE(to->word) == to_word && READ_ONCE(from->word) == word ? 0 : REASON_UP_CHANGED;
}

/* A target that is another leg of this relay, and has learned us as its source: the packet need not travel. */
CALLED const struct slot *shortcut(struct control *c, const struct route *r, u32 *index, u64 *word)
{
    const struct config *k;
    const struct slot *s;

    if (!slot_index(c, r->target, r->target_port, index))
        return 0;
    s = map_lookup(&slots, index);
    if (!s)
        return 0;
    *word = READ_ONCE(s->word);
    k = active(s, *word);
    if (state_of(*word) != STATE_LEARNED || !same(k->source, r->source) || k->source_port != r->source_port)
        return 0;
    return s;
}

/* The slots behind the first one, if it leads to another leg of this relay. */
CALLED void follow(struct control *c, struct scratch *room)
{
    const struct slot *s;
    u32 index = 0, i;
    u64 word = 0;

    UNROLL
    for (i = 1; i < HOPS; i++) {
        s = room->route.flags & FLAG_OWN ? shortcut(c, &room->route, &index, &word) : 0;
        if (!s)
            return;
        room->hops[i] = index;
        room->count++;
        room->reason = find_route(c, s, word, &room->route);
        if (room->reason)
            return;
    }
    if (room->route.flags & FLAG_OWN && shortcut(c, &room->route, &index, &word))
        room->reason = REASON_LOOP;
}

/* Note a packet of the source of a slot: forwarded, or with nowhere to go. */
INLINE void account(struct counters *n, const struct slot *s, u64 word, const struct packet *p, int forwarded, u64 now)
{
    begin(n, (u32)word);
    hear(n, active(s, word), p, (u8)(word >> 48), now);
    if (forwarded) {
        __sync_fetch_and_add(&n->packets, p->segments);
        __sync_fetch_and_add(&n->bytes, p->length - UDP);
    } else {
        /* In this order. Else the compiler makes one addition of two, at an address that depends on the way here: that is
         * allowed to root only. */
        __sync_fetch_and_add(&n->undeliverable_bytes, p->length - UDP);
        __sync_fetch_and_add(&n->undeliverable, p->segments);
    }
}

/* The same of a slot that the packet came to on a short cut. */
CALLED void account_hop(u32 index, const struct packet *p, int forwarded, u64 now)
{
    struct counters *n = map_lookup(&counters, &index);
    const struct slot *s = map_lookup(&slots, &index);

    if (n && s)
        account(n, s, READ_ONCE(s->word), p, forwarded, now);
}

/* Why a plain packet must take the way through user space; 0: it need not. */
INLINE u32 unfit(const struct __sk_buff *skb, const struct packet *p, const struct route *r)
{
    u32 header = r->flags & FLAG_V6 ? IPV6 : IPV4;
    u32 size = p->ip_length - (p->version == 6 ? IPV6 : IPV4);

    if (p->odd)
        return p->odd;
    if (p->version == 4 && header == IPV6 && !p->checksum)
        return REASON_UP_NO_CHECKSUM;
    if (skb->gso_size)
        size = skb->gso_size + UDP;
    return r->mtu && size + header > r->mtu ? REASON_UP_TOO_BIG : 0;
}

/* Whether the field in the packet holds a whole checksum, as far as that can be known; if not, l4_csum_replace must be
   asked. What a sender leaves to its card (CHECKSUM_PARTIAL) is the sum of the pseudo header and nothing else. */
INLINE int is_whole(struct __sk_buff *skb, const struct packet *p)
{
    int v4 = p->version == 4;
    u16 sum;

    if (skb->gso_size)
        return csum_level(skb, CSUM_LEVEL_QUERY) >= 0; /* CHECKSUM_UNNECESSARY: hardware has checked it */
    sum = fold16(pseudo(p->source, v4) + pseudo(p->destination, v4) + be32(PROTO_UDP) + be32(p->length));
    return sum != p->checksum && sum != 0xffff;
}

/* Note whether the checksum is whole. 0: the packet can be written. */
INLINE int look_at_checksum(struct __sk_buff *skb, struct packet *p)
{
    p->whole = is_whole(skb, p);
    if (csum_update(skb, 0) < 0)
        return 0;
    /* CHECKSUM_COMPLETE: the kernel's sum of the packet would not survive the new Ethernet header, and a veth's receiver
       would drop the packet because of it. Growing makes the kernel forget the sum; nothing else does. */
    p->whole = 1;
    return skb->gso_size ? 0 : skb_change_tail(skb, skb->len + 1, 0) || skb_change_tail(skb, skb->len - 1, 0);
}

/* Give the packet the size, the headers' room and the IP version that it leaves with. 0, or why not: the packet is still
   as it was if it is to be passed up. */
INLINE u32 reshape(struct __sk_buff *skb, u32 *at, struct packet *p, const struct route *r)
{
    u16 type = be16(r->flags & FLAG_V6 ? TYPE_IPV6 : TYPE_IPV4), was = skb->protocol;

    if (skb->len > *at + p->ip_length) /* an Ethernet frame has at least 60 bytes */
        skb_change_tail(skb, *at + p->ip_length, 0);
    if (look_at_checksum(skb, p) || (skb->protocol != type && skb_change_proto(skb, type, 0)))
        return REASON_UP_NO_ROOM;
    if (!*at) { /* redirect_neigh wants an Ethernet header */
        if (skb_change_head(skb, ETHERNET, 0))
            return REASON_UNDELIVERABLE;
        *at = ETHERNET;
    } else if (skb->protocol == was) {
        return 0;
    }
    skb_store_bytes(skb, *at - sizeof(type), &type, sizeof(type), 0);
    return 0;
}

/* To the neighbour that the relay has found, which spares the kernel a look at its routes. Not without a living relay,
   for nobody would hear that routes have changed; nor from lo, whose packets have the route on them by which they came
   there: the kernel would send along that, once it knew the neighbour. */
INLINE int leave(struct __sk_buff *skb, struct control *c, const struct route *r, u64 now)
{
    struct neighbour to = {};

    if (!r->via || skb->ifindex == LOOPBACK || gone(c, now))
        return redirect_neigh(r->ifindex, 0, 0, 0);
    if (r->via == 4) {
        to.family = FAMILY_INET;
        to.address[0] = r->gateway[3];
    } else {
        to.family = FAMILY_INET6;
        copy(to.address, r->gateway);
    }
    return redirect_neigh(r->ifindex, &to, sizeof(to), 0);
}

INLINE int send(struct __sk_buff *skb, u32 at, struct control *c, const struct packet *p, const struct route *r, u8 ttl,
                u64 now)
{
    if (rewrite(skb, at, p, r, ttl))
        return drop(REASON_UNDELIVERABLE);
    count(REASON_FORWARDED);
    /* What other programs wrote there was for the packet that came. Volatile: two fields, two writes. */
    *(volatile u32 *)&skb->mark = 0;
    *(volatile u32 *)&skb->queue_mapping = 0;
    return leave(skb, c, r, now);
}

/* The slots that a packet of the source of slot `s` comes to, and where it leaves, into room. The answers are left in
   memory, so that the verifier goes on with one case and not with all of them. */
INLINE void resolve(struct control *c, struct scratch *room, const struct slot *s, u64 word)
{
    room->count = 1;
    room->reason = find_route(c, s, word, &room->route);
    if (!READ_ONCE(room->reason) && room->route.flags & FLAG_OWN)
        follow(c, room);
}

/* A packet from the source of slot `s`. */
INLINE int forward(struct __sk_buff *skb, u32 at, struct control *c, struct scratch *room, const struct slot *s,
                   u64 word, struct counters *n, u64 now)
{
    struct packet *p = &room->packet;
    struct route *r = &room->route;
    u32 reason, count_, i;

    resolve(c, room, s, word);
    reason = READ_ONCE(room->reason);
    if (!reason && p->ttl <= room->count)
        reason = REASON_TTL;
    if (!reason)
        reason = unfit(skb, p, r);
    if (!reason)
        reason = reshape(skb, &at, p, r);
    if (reason >= REASON_UP && reason <= REASON_UP_NO_ROOM) {
        begin(n, (u32)word);
        return pass_up(c, n, 1, reason, now);
    }
    count_ = room->count;
    account(n, s, word, p, !reason || count_ > 1, now);
    UNROLL
    for (i = 1; i < HOPS; i++)
        if (i < count_)
            account_hop(room->hops[i], p, !reason || i + 1 < count_, now);
    return reason ? drop(reason) : send(skb, at, c, p, r, p->ttl - count_, now);
}

/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The same for native XDP, in front of the other program: only what it can finish itself. A plain packet of a learned
 * source, to a peer of the same IP version and a next hop that the kernel knows, leaves at once; every other packet
 * passes untouched and uncounted, and the program behind the driver decides.
 *
 * It sends by interfaces only that have it, too. From hardware the UDP checksum is always a whole one; on virtual interfaces, where it may be left out, this program
 * must not be used. It needs Linux 5.18, and forwarding switched on for the interface that packets leave by.
 */
#pragma once
#include "forward.bpf.h"

enum { PLAIN = UDP + RTP }; /* bytes behind the IP header that a packet has at least */

INLINE int plain_ipv4(const u8 *data, const u8 *end, struct packet *p)
{
    const u32 *from = (const u32 *)(data + ETHERNET);
    u32 *h = p->head, i;

    if (data + ETHERNET + IPV4 + PLAIN > end)
        return 0;
    UNROLL
    for (i = 0; i < (IPV4 + PLAIN) / 4; i++)
        h[i] = from[i];
    if ((be32(h[0]) >> 24) != 0x45 || be32(h[1]) & 0x3fff || (be32(h[2]) >> 16 & 255) != PROTO_UDP)
        return 0;
    mapped(p->source, h[3]);
    mapped(p->destination, h[4]);
    return parse_ipv4(ETHERNET, p) == DONE && fold16(sum5(h)) == 0xffff;
}

INLINE int plain_ipv6(const u8 *data, const u8 *end, struct packet *p)
{
    const u32 *from = (const u32 *)(data + ETHERNET);
    u32 *h = p->head, i;

    if (data + ETHERNET + IPV6 + PLAIN > end)
        return 0;
    UNROLL
    for (i = 0; i < (IPV6 + PLAIN) / 4; i++)
        h[i] = from[i];
    if (be32(h[0]) >> 28 != 6 || (be32(h[1]) >> 8 & 255) != PROTO_UDP)
        return 0;
    copy(p->source, h + 2);
    copy(p->destination, h + 6);
    note_ipv6(ETHERNET, p);
    return 1;
}

/* A plain, well-formed packet to a port of the relay: 1, and *index is its slot. */
INLINE int plain(const u8 *data, const u8 *end, struct control *c, struct packet *p, u32 *index)
{
    const u16 *type = (const u16 *)(data + ETHERNET - 2);
    u32 address, udp[2], rtp[3], i;
    int v4;

    if (data + ETHERNET > end)
        return 0;
    v4 = *type == be16(TYPE_IPV4);
    if (v4 ? !plain_ipv4(data, end, p) : *type != be16(TYPE_IPV6) || !plain_ipv6(data, end, p))
        return 0;
    address = address_index(c, p->destination);
    if (address >= ADDRESSES || (!v4 && !(p->destination[0] | p->destination[1])))
        return 0;
    UNROLL
    for (i = 0; i < 2; i++)
        udp[i] = either(p, v4, i);
    UNROLL
    for (i = 0; i < 3; i++)
        rtp[i] = either(p, v4, 2 + i);
    note_udp(p, udp, rtp, 1);
    p->segments = 1;
    p->whole = 1;
    if (p->length < PLAIN || p->udp + p->length > ETHERNET + (u32)p->ip_length || (!v4 && !p->checksum))
        return 0;
    return port_index(c, address, p->destination_port, index);
}

/* Where the kernel would send it: the Ethernet addresses are in *f. 1: it is known. */
INLINE int next_hop(struct xdp_md *ctx, const struct packet *p, const struct route *r, struct fib_lookup *f)
{
    f->family = p->version == 4 ? FAMILY_INET : FAMILY_INET6;
    f->l4_protocol = PROTO_UDP;
    f->source_port = r->source_port;
    f->target_port = r->target_port;
    f->total_length = p->ip_length;
    f->ifindex = r->ifindex;
    if (p->version == 4) {
        f->source[0] = r->source[3];
        f->target[0] = r->target[3];
    } else {
        copy(f->source, r->source);
        copy(f->target, r->target);
    }
    return !find_neighbour(ctx, f, sizeof(*f), FIB_OUTPUT) && f->ifindex == r->ifindex;
}

/* The whole head of the frame that leaves. */
struct head {
    u16 spare; /* so that the headers behind are aligned */
    u8 target_mac[6], source_mac[6];
    u16 type;
    union headers ip;
};

/* Write it. 0: done. */
INLINE int replace(struct xdp_md *ctx, const struct packet *p, const struct route *r, const struct fib_lookup *f)
{
    struct head h;

    __builtin_memcpy(h.target_mac, f->target_mac, 6);
    __builtin_memcpy(h.source_mac, f->source_mac, 6);
    if (build(&h.ip, p, r, p->ttl - 1, readdress(p, r)) == IPV6) {
        h.type = be16(TYPE_IPV6);
        return store_frame(ctx, 0, h.target_mac, ETHERNET + IPV6 + UDP);
    }
    h.type = be16(TYPE_IPV4);
    return store_frame(ctx, 0, h.target_mac, ETHERNET + IPV4 + UDP);
}

INLINE int relay_frame(struct xdp_md *ctx)
{
    u8 *data = (u8 *)(u64)ctx->data, *end = (u8 *)(u64)ctx->data_end;
    u32 index = 0, zero = 0;
    struct control *c = map_lookup(&control, &zero);
    struct scratch *room = map_lookup(&scratch, &zero);
    struct fib_lookup f = {};
    const struct config *k;
    struct packet *p;
    struct route *r;
    struct slot *s;
    u64 word;

    if (!c || !room || !plain(data, end, c, &room->packet, &index))
        return XDP_PASS;
    p = &room->packet;
    r = &room->route;
    if (frame_length(ctx) != ETHERNET + (u64)p->ip_length)
        return XDP_PASS; /* padded, or cut */
    s = map_lookup(&slots, &index);
    if (!s)
        return XDP_PASS;
    word = READ_ONCE(s->word);
    k = active(s, word);
    if (state_of(word) != STATE_LEARNED || !same(k->source, p->source) || k->source_port != p->source_port)
        return XDP_PASS;
    if (aside(k, p))
        return XDP_PASS;
    if (find_route(c, s, word, r) || r->flags & FLAG_OWN || p->ttl < 2 || (r->mtu && p->ip_length > r->mtu))
        return XDP_PASS;
    if (!(r->flags & FLAG_XDP)) /* other interfaces may take nothing from XDP, and nobody would say so */
        return XDP_PASS;
    if (!(r->flags & FLAG_V6) != (p->version == 4) || !next_hop(ctx, p, r, &f))
        return XDP_PASS;
    if (replace(ctx, p, r, &f))
        return XDP_PASS;
    account_hop(index, p, 1, ktime_get_ns());
    count(REASON_FORWARDED);
    return redirect(r->ifindex, 0);
}

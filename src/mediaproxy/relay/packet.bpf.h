/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Packets as they come: which slot they are for, and whether they are well formed.
 */
#pragma once
#include "relay.bpf.h"

enum { ETHERNET = 14, IPV4 = 20, IPV6 = 40, UDP = 8, RTP = 12 };
enum { PROTO_UDP = 17, PROTO_HOPOPTS = 0, PROTO_ROUTING = 43, PROTO_FRAGMENT = 44, PROTO_DSTOPTS = 60 };
enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd };
enum { DONE = -2 }; /* verdict(): go on */

/* What parse() has found. */
struct packet {
    u32 source[4], destination[4];
    u32 head[15];      /* the IP header as it came, without options; then UDP and RTP, if they follow at once */
    u32 whole_head;    /* not 0: they do, unless there are options or extensions */
    u32 udp;           /* offset of the UDP header */
    u16 source_port, destination_port, length, checksum;
    u16 ip_length;     /* of the whole IP packet */
    u8 version, ttl, tos;
    u8 odd;            /* REASON_UP_FRAGMENT or REASON_UP_OPTIONS: not for forwarding here; 0: plain */
    u8 is_rtp;
    u8 whole;          /* checksum is that of the whole packet, not of the pseudo header alone */
    u16 segments;      /* datagrams that the kernel carries as one (UDP_SEGMENT, GRO) */
    u32 rtp[3];        /* the RTP header, host order */
};

/* Where it goes. */
struct route {
    u32 source[4], target[4];
    u32 ifindex;
    u16 source_port, target_port, mtu;
    u8 flags, tos, via;
    u32 gateway[4];
};

/* Room for one packet at a time per CPU: it would crowd the stack, which without CAP_PERFMON must not be reused. */
struct scratch {
    struct packet packet;
    struct route route;
    u32 hops[SHORTCUTS + 1]; /* the slots that the packet comes to */
    u32 count;               /* how many */
    u32 reason;              /* why it goes no further; 0: it leaves by route */
};

struct {
    NUMBER(type, MAP_PERCPU_ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct scratch);
} scratch SEC(".maps");

INLINE void count(u32 reason)
{
    u32 zero = 0;
    struct totals *t = map_lookup(&totals, &zero);

    if (!t)
        return;
    *(volatile u64 *)&t->which = reason; /* through memory: the verifier must not see one index here, another there */
    t->reasons[READ_ONCE(t->which) & (REASONS - 1)]++;
}

INLINE int drop(u32 reason)
{
    count(reason);
    return TC_DROP;
}

INLINE void copy(u32 *to, const u32 *from)
{
    to[0] = from[0], to[1] = from[1], to[2] = from[2], to[3] = from[3];
}

/* -- checksums: sums of 32-bit words in one's complement (RFC 1071) */

INLINE u32 fold32(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (u32)sum + (u32)(sum >> 32);
}

INLINE u16 fold16(u64 sum)
{
    u32 folded = fold32(sum);

    folded = (folded & 0xffff) + (folded >> 16);
    return (u16)(folded + (folded >> 16));
}

INLINE u64 sum4(const u32 *words)
{
    return (u64)words[0] + words[1] + words[2] + words[3];
}

INLINE u64 sum5(const u32 *words)
{
    return sum4(words) + words[4];
}

/* What an address adds to a pseudo header; the mark of a mapped IPv4 address is no part of it. */
INLINE u64 pseudo(const u32 *address, int v4)
{
    return v4 ? address[3] : sum4(address);
}

/* -- reading */

INLINE u32 address_index(struct control *c, const u32 *ip)
{
    u32 i, found = ADDRESSES;

    if (same(c->addresses[0], ip)) /* most relays have no other */
        return 0;
    UNROLL
    for (i = 1; i < ADDRESSES; i++)
        if (found == ADDRESSES && same(c->addresses[i], ip))
            found = i;
    return found;
}

/* The slot of a port of an own address, in *index; 0: none. */
INLINE int port_index(struct control *c, u32 address, u16 port, u32 *index)
{
    u32 offset = (u32)be16(port) - c->port_min;

    *index = address * c->ports + offset;
    return offset < c->ports;
}

/* The slot of an own address and port, in *index; 0: none. */
INLINE int slot_index(struct control *c, const u32 *ip, u16 port, u32 *index)
{
    u32 address = address_index(c, ip);

    return address < ADDRESSES && port_index(c, address, port, index);
}

INLINE void mapped(u32 *to, u32 v4)
{
    to[0] = to[1] = 0, to[2] = be32(0xffff), to[3] = v4;
}

/* Copy the first headers of the packet into p->head: the plain ones in one piece, else at least the IP header. */
INLINE int fetch(struct __sk_buff *skb, u32 at, u32 ip, struct packet *p)
{
    const u8 *data = (const u8 *)(u64)skb->data, *end = (const u8 *)(u64)skb->data_end;
    const u8 *from = data + at;
    u32 i;

    p->whole_head = from + ip + UDP + RTP <= end;
    if (p->whole_head) {
        UNROLL
        for (i = 0; i < (ip + UDP + RTP) / 4; i++) /* words: whoever reads them next waits for bytes to be joined */
            p->head[i] = ((const u32 *)from)[i];
        return 0;
    }
    return skb_load_bytes(skb, at, p->head, ip) ? -1 : 0;
}

/* Read an IPv4 header: source, destination. 0: it is one. */
INLINE int read_ipv4(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 *h = p->head;

    if (fetch(skb, at, IPV4, p))
        return -1;
    mapped(p->source, h[3]);
    mapped(p->destination, h[4]);
    return be32(h[0]) >> 28 != 4 || (be32(h[2]) >> 16 & 255) != PROTO_UDP;
}

/* The same for IPv6. */
INLINE int read_ipv6(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 *h = p->head;

    if (fetch(skb, at, IPV6, p))
        return -1;
    copy(p->source, h + 2);
    copy(p->destination, h + 6);
    if (!(h[6] | h[7]) && h[8] == be32(0xffff))
        return -1; /* a mapped IPv4 address has no business on a wire (RFC 4291 2.5.5.2) */
    return be32(h[0]) >> 28 != 6;
}

INLINE int parse_ipv4(u32 at, struct packet *p)
{
    u32 *h = p->head, words = be32(h[0]) >> 24 & 15, fragment = be32(h[1]) & 0x3fff;

    if (words < 5)
        return TC_NEXT;
    if (fragment & 0x1fff) {
        count(REASON_FRAGMENT);
        return TC_NEXT;
    }
    p->version = 4;
    p->ip_length = be32(h[0]) & 0xffff;
    p->tos = be32(h[0]) >> 16 & 255;
    p->ttl = be32(h[2]) >> 24;
    p->udp = at + words * 4;
    p->odd = fragment ? REASON_UP_FRAGMENT : words > 5 ? REASON_UP_OPTIONS : 0;
    return DONE;
}

/* Find UDP behind extension headers. */
INLINE int skip_extensions(struct __sk_buff *skb, u32 *at, u8 next, struct packet *p)
{
    u8 extension[8];
    u32 i;

    for (i = 0; i < EXTENSIONS; i++) {
        if (next == PROTO_UDP)
            return DONE;
        if (next != PROTO_HOPOPTS && next != PROTO_ROUTING && next != PROTO_DSTOPTS && next != PROTO_FRAGMENT)
            return TC_NEXT;
        if (skb_load_bytes(skb, *at, extension, sizeof(extension)))
            return TC_NEXT;
        if (next == PROTO_FRAGMENT) {
            if (extension[2] || extension[3] & 0xf8) {
                count(REASON_FRAGMENT);
                return TC_NEXT;
            }
            if (extension[3] & 1)
                p->odd = REASON_UP_FRAGMENT;
            *at += 8;
        } else {
            *at += 8 * (extension[1] + 1);
        }
        if (!p->odd)
            p->odd = REASON_UP_OPTIONS;
        next = extension[0];
    }
    return next == PROTO_UDP ? DONE : TC_NEXT;
}

INLINE void note_ipv6(u32 at, struct packet *p)
{
    u32 *h = p->head, length = (be32(h[1]) >> 16) + IPV6;

    p->version = 6;
    p->ip_length = length > 0xffff ? 0 : length;
    p->tos = be32(h[0]) >> 20 & 255;
    p->ttl = be32(h[1]) & 255;
    p->udp = at + IPV6;
    p->odd = 0;
}

INLINE int parse_ipv6(struct __sk_buff *skb, u32 at, struct packet *p)
{
    note_ipv6(at, p);
    return skip_extensions(skb, &p->udp, be32(p->head[1]) >> 8 & 255, p);
}

/* A word behind a plain IP header. */
INLINE u32 either(const struct packet *p, int v4, u32 word)
{
    u32 four = p->head[IPV4 / 4 + word], six = p->head[IPV6 / 4 + word];

    opaque(four); /* two loads and a choice: the verifier wants no choice of places */
    opaque(six);
    return v4 ? four : six;
}

/* Note the UDP header and the beginning of RTP. */
INLINE void note_udp(struct packet *p, const u32 *udp, const u32 *rtp, int there)
{
    u32 type = be32(rtp[0]) >> 16 & 255;

    p->source_port = be16(be32(udp[0]) >> 16);
    p->destination_port = be16(be32(udp[0]));
    p->length = be32(udp[1]) >> 16;
    p->checksum = be16(be32(udp[1]));
    p->rtp[0] = be32(rtp[0]), p->rtp[1] = be32(rtp[1]), p->rtp[2] = be32(rtp[2]);
    p->is_rtp = there && p->length >= UDP + RTP && p->rtp[0] >> 30 == 2 && (type < 192 || type > 223); /* RFC 5761 4 */
}

/* The UDP header and the beginning of RTP. 0: there is a whole UDP header. */
INLINE int read_udp(struct __sk_buff *skb, struct packet *p, int v4)
{
    u32 udp[2], rtp[3] = {}, there = 1;

    if (p->whole_head && !p->odd) {
        udp[0] = either(p, v4, 0), udp[1] = either(p, v4, 1);
        rtp[0] = either(p, v4, 2), rtp[1] = either(p, v4, 3), rtp[2] = either(p, v4, 4);
    } else {
        if (skb_load_bytes(skb, p->udp, udp, UDP))
            return -1;
        there = !skb_load_bytes(skb, p->udp + UDP, rtp, RTP);
    }
    note_udp(p, udp, rtp, there);
    return 0;
}

/* How many datagrams the kernel carries as this one. Virtual cards leave gso_segs at 0. */
INLINE u16 count_segments(struct __sk_buff *skb, const struct packet *p)
{
    u32 size = skb->gso_size, known;

    if (!size)
        return 1;
    known = skb->gso_segs;
    if (known)
        return known;
    return p->length > UDP ? (p->length - UDP + size - 1) / size : 1;
}

/* A UDP packet to a port of the relay: DONE, and *index is its slot. Else the verdict. */
INLINE int parse(struct __sk_buff *skb, u32 at, struct control *c, struct packet *p, u32 *index)
{
    int v4 = skb->protocol == be16(TYPE_IPV4), verdict;
    u32 address;

    if (v4 ? read_ipv4(skb, at, p) : skb->protocol != be16(TYPE_IPV6) || read_ipv6(skb, at, p))
        return TC_NEXT;
    address = address_index(c, p->destination);
    if (address >= ADDRESSES)
        return TC_NEXT;
    verdict = v4 ? parse_ipv4(at, p) : parse_ipv6(skb, at, p);
    if (verdict != DONE)
        return verdict;
    if (read_udp(skb, p, v4) || !port_index(c, address, p->destination_port, index))
        return TC_NEXT;
    p->segments = count_segments(skb, p);
    return DONE;
}

/* Whether the lengths agree, and the checksum of an IPv4 header that will be written anew. */
INLINE int well_formed(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 end = at + p->ip_length;

    if (p->length < UDP || end > skb->len)
        return 0;
    if (p->odd == REASON_UP_FRAGMENT)
        return p->udp + UDP <= end;
    if (p->udp + p->length > end)
        return 0;
    return p->version == 6 || p->odd || fold16(sum5(p->head)) == 0xffff;
}


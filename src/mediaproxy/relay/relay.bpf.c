/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The kernel's part of the relay: UDP packets that come to lent ports, at the ingress of every interface.
 *
 * A packet from exactly a slot's learned source leaves at once, from the peer's address and port to the peer's target.
 * Everything else that may change a decision of the relay is passed up to its socket, as much as that can need; the rest
 * is dropped, without a sound. relay/packetpath.py is the specification of the verdict and of every byte; docs/kernel.md
 * says why. Packets are read and written by helpers only, so that nobody else's packets are ever copied because of us.
 */
#include "relay.bpf.h"

enum { ETHERNET = 14, IPV4 = 20, IPV6 = 40, UDP = 8, RTP = 12 };
enum { PROTO_UDP = 17, PROTO_HOPOPTS = 0, PROTO_ROUTING = 43, PROTO_FRAGMENT = 44, PROTO_DSTOPTS = 60 };
enum { TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd };
enum { DONE = -2 }; /* verdict(): go on */

/* What parse() has found. */
struct packet {
    u32 source[4], destination[4];
    u32 header[10];    /* the IP header as it came, without options */
    u32 udp;           /* offset of the UDP header */
    u16 source_port, destination_port, length, checksum;
    u16 ip_length;     /* of the whole IP packet */
    u8 version, ttl, tos;
    u8 odd;            /* REASON_UP_FRAGMENT or REASON_UP_OPTIONS: not for forwarding here; 0: plain */
    u8 payload;        /* bytes of rtp that are there: 12 or 0 */
    u16 segments;      /* datagrams that the kernel carries as one (UDP_SEGMENT, GRO) */
    u8 rtp[RTP];
};

/* Where it goes. */
struct route {
    u32 source[4], target[4];
    u32 ifindex;
    u16 source_port, target_port, mtu;
    u8 flags, tos;
};

/* Room for one packet at a time per CPU: it would crowd the stack, which without CAP_PERFMON must not be reused. */
struct scratch {
    struct packet packet;
    struct route route;
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

INLINE int same(const u32 *one, const u32 *other)
{
    return !((one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]));
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

    UNROLL
    for (i = 0; i < ADDRESSES; i++)
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

/* Read an IPv4 header: source, destination. 0: it is one. */
INLINE int read_ipv4(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 *h = p->header;

    if (skb_load_bytes(skb, at, h, IPV4))
        return -1;
    mapped(p->source, h[3]);
    mapped(p->destination, h[4]);
    return be32(h[0]) >> 28 != 4 || (be32(h[2]) >> 16 & 255) != PROTO_UDP;
}

/* The same for IPv6. */
INLINE int read_ipv6(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 *h = p->header;

    if (skb_load_bytes(skb, at, h, IPV6))
        return -1;
    copy(p->source, h + 2);
    copy(p->destination, h + 6);
    if (!(h[6] | h[7]) && h[8] == be32(0xffff))
        return -1; /* a mapped IPv4 address has no business on a wire (RFC 4291 2.5.5.2) */
    return be32(h[0]) >> 28 != 6;
}

INLINE int parse_ipv4(u32 at, struct packet *p)
{
    u32 *h = p->header, words = be32(h[0]) >> 24 & 15, fragment = be32(h[1]) & 0x3fff;

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

INLINE int parse_ipv6(struct __sk_buff *skb, u32 at, struct packet *p)
{
    u32 *h = p->header, length = (be32(h[1]) >> 16) + IPV6;

    p->version = 6;
    p->ip_length = length > 0xffff ? 0 : length;
    p->tos = be32(h[0]) >> 20 & 255;
    p->ttl = be32(h[1]) & 255;
    p->udp = at + IPV6;
    p->odd = 0;
    return skip_extensions(skb, &p->udp, be32(h[1]) >> 8 & 255, p);
}

/* A UDP packet to a port of the relay: DONE, and *index is its slot. Else the verdict. */
INLINE int parse(struct __sk_buff *skb, u32 at, struct control *c, struct packet *p, u32 *index)
{
    int v4 = skb->protocol == be16(TYPE_IPV4), verdict;
    u32 address;
    u16 udp[4];

    if (v4 ? read_ipv4(skb, at, p) : skb->protocol != be16(TYPE_IPV6) || read_ipv6(skb, at, p))
        return TC_NEXT;
    address = address_index(c, p->destination);
    if (address >= ADDRESSES)
        return TC_NEXT;
    verdict = v4 ? parse_ipv4(at, p) : parse_ipv6(skb, at, p);
    if (verdict != DONE)
        return verdict;
    if (skb_load_bytes(skb, p->udp, udp, UDP) || !port_index(c, address, udp[1], index))
        return TC_NEXT;
    p->source_port = udp[0];
    p->destination_port = udp[1];
    p->length = be16(udp[2]);
    p->checksum = udp[3];
    p->segments = skb->gso_segs > 1 ? skb->gso_segs : 1;
    p->payload = 0;
    if (!skb_load_bytes(skb, p->udp + UDP, p->rtp, RTP))
        p->payload = p->length >= UDP + RTP ? RTP : 0;
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
    return p->version == 6 || p->odd || fold16(sum5(p->header)) == 0xffff;
}

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

INLINE int is_rtp(const struct packet *p)
{
    return p->payload == RTP && p->rtp[0] >> 6 == 2 && (p->rtp[1] < 192 || p->rtp[1] > 223); /* RFC 5761 4 */
}

INLINE u16 rtp_sequence(const struct packet *p)
{
    return (u16)(p->rtp[2] << 8 | p->rtp[3]);
}

INLINE u32 word_at(const u8 *bytes)
{
    return (u32)bytes[0] << 24 | (u32)bytes[1] << 16 | (u32)bytes[2] << 8 | bytes[3];
}

/* calls.md 6: whether a packet of another port can replace a settled source. */
INLINE int may_move(struct control *c, struct counters *n, const struct packet *p, u64 now)
{
    u16 ahead = (u16)(rtp_sequence(p) - n->sequence);

    if (now - n->last >= c->silence)
        return 1;
    return is_rtp(p) && n->payload_type & 128 && word_at(p->rtp + 8) == n->ssrc && ahead >= 1 && ahead <= c->ahead;
}

INLINE void begin(struct counters *n, u32 generation)
{
    if (n->generation == generation)
        return;
    n->packets = n->bytes = n->last = n->arrived = 0;
    n->rtp = n->lost = n->jitter = n->tick = n->ssrc = n->timestamp = 0;
    n->sequence = n->payload_type = n->change = 0;
    n->undeliverable = n->dropped = n->passed = n->ranked = n->strangers = 0;
    n->generation = generation;
}

/* Pass up, or drop because nobody is there or enough were passed up. */
CALLED int pass_up(struct control *c, struct counters *n, int ranked, u32 reason, u64 now)
{
    u32 zero = 0;
    struct totals *t = map_lookup(&totals, &zero);

    if (!t)
        return TC_DROP;
    if (now > c->heartbeat && now - c->heartbeat > c->alive)
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

/* -- what a packet from the source tells (RFC 3550 6.4.1, A.3, A.8) */

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
    u8 payload_type = p->rtp[1] | 128;
    u16 sequence = rtp_sequence(p), ahead = (u16)(sequence - n->sequence);
    u32 timestamp = word_at(p->rtp + 4), ssrc = word_at(p->rtp + 8), tick = n->tick;
    u16 more = p->segments - 1; /* in sequence, one hopes */
    int follows = n->payload_type & 128 && n->ssrc == ssrc && (ahead < 0x4000 || ahead >= 0xc000);

    if (n->payload_type != payload_type || n->change != change) {
        tick = tick_of(k, payload_type & 127);
        n->change = change;
    }
    if (follows && tick && tick == n->tick && timestamp != n->timestamp) {
        s64 apart = (s64)(now - n->arrived) - ((s64)(s32)(timestamp - n->timestamp) * tick >> 5);
        u64 off = apart < 0 ? -apart : apart;
        u64 jitter = n->jitter + (off > 0xfffffff ? 0xfffffff : off) - ((n->jitter + 8) >> 4);

        n->jitter = jitter > 0xffffffff ? 0xffffffff : jitter;
    }
    if (!follows || ahead < 0x4000) {
        n->lost += follows ? (s32)ahead - 1 : 0;
        n->sequence = sequence + more;
    } else {
        n->lost -= p->segments; /* late: they were counted as lost when their successor came */
    }
    n->rtp += p->segments;
    n->tick = tick;
    n->arrived = now;
    n->ssrc = ssrc;
    n->timestamp = timestamp;
    n->payload_type = payload_type;
}

INLINE void hear(struct counters *n, const struct config *k, const struct packet *p, u8 change, u64 now)
{
    n->last = now;
    if (is_rtp(p))
        hear_rtp(n, k, p, change, now);
}

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
    h[1] = same_version ? p->header[1] : be32(0x4000); /* don't fragment, no identification (RFC 6864) */
    h[2] = be32((u32)ttl << 24 | PROTO_UDP << 16);
    h[3] = r->source[3];
    h[4] = r->target[3];
    h[2] |= be32((u32)be16((u16)~fold16(sum5(h))));
}

INLINE void build_ipv6(u32 *h, const struct packet *p, const struct route *r, u8 ttl, u8 tos)
{
    int same_version = p->version == 6;
    u32 length = same_version ? p->ip_length - IPV6 : p->ip_length - IPV4;

    h[0] = be32(0x60000000 | (u32)tos << 20 | (same_version ? be32(p->header[0]) & 0xfffff : 0));
    h[1] = be32(length << 16 | PROTO_UDP << 8 | ttl);
    copy(h + 2, r->source);
    copy(h + 6, r->target);
}

/* Write the headers; the packet already has the right IP version. 0: done. */
CALLED int rewrite(struct __sk_buff *skb, u32 at, const struct packet *p, const struct route *r, u8 ttl)
{
    u8 tos = r->flags & FLAG_TOS ? (r->tos & 0xfc) | (p->tos & 3) : p->tos;
    u32 size = r->flags & FLAG_V6 ? IPV6 : IPV4;
    u32 addresses = fold32(pseudo(r->source, size == IPV4) + pseudo(r->target, size == IPV4) +
                           (u64)(u32)~fold32(pseudo(p->source, p->version == 4)) +
                           (u32)~fold32(pseudo(p->destination, p->version == 4)));
    u32 ports = fold32((u64)r->source_port + r->target_port + (u32)~p->source_port + (u32)~p->destination_port);
    int complete = csum_update(skb, 0) >= 0; /* CHECKSUM_COMPLETE: the kernel has summed up the packet */
    union {
        u32 words[12];
        u16 halves[24];
    } h;

    if (size == IPV6) {
        build_ipv6(h.words, p, r, ttl, tos);
        h.halves[20] = r->source_port;
        h.halves[21] = r->target_port;
        h.halves[22] = be16(p->length);
        h.halves[23] = complete ? new_checksum(p, r, addresses) : p->checksum;
        if (skb_store_bytes(skb, at, &h, IPV6 + UDP, complete ? RECOMPUTE_CSUM : 0))
            return -1;
    } else {
        build_ipv4(h.words, p, r, ttl, tos);
        h.halves[10] = r->source_port;
        h.halves[11] = r->target_port;
        h.halves[12] = be16(p->length);
        h.halves[13] = complete && p->checksum ? new_checksum(p, r, addresses) : p->checksum;
        if (skb_store_bytes(skb, at, &h, IPV4 + UDP, complete ? RECOMPUTE_CSUM : 0))
            return -1;
    }
    if (complete || !p->checksum)
        return 0;
    /* The field holds the sum of the pseudo header (CHECKSUM_PARTIAL) or a whole checksum; the kernel knows. */
    if (l4_csum_replace(skb, at + size + 6, 0, addresses, PSEUDO_HEADER | ZERO_STAYS_ZERO))
        return -1;
    return l4_csum_replace(skb, at + size + 6, 0, ports, ZERO_STAYS_ZERO) ? -1 : 0;
}

/* -- forwarding */

enum { HOPS = SHORTCUTS + 1 };

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

/* Where a packet that came from the source of slot `from` goes. 0, or the reason why it cannot be forwarded. */
CALLED u32 find_route(struct control *c, const struct slot *from, u64 word, struct route *r)
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
    barrier();
    return READ_ONCE(to->word) == to_word && READ_ONCE(from->word) == word ? 0 : REASON_UP_CHANGED;
}

/* A target that is another leg of this relay, and has learned us as its source: the packet need not travel. */
CALLED const struct slot *shortcut(struct control *c, const struct route *r, u32 *index, u64 *word)
{
    const struct config *k;
    const struct slot *s;

    if (!(r->flags & FLAG_OWN) || !slot_index(c, r->target, r->target_port, index))
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

/* Note a packet of the source of a slot: forwarded, or with nowhere to go. */
CALLED void account(u32 index, const struct packet *p, int forwarded, u64 now)
{
    struct counters *n = map_lookup(&counters, &index);
    const struct slot *s = map_lookup(&slots, &index);
    u64 word;

    if (!n || !s)
        return;
    word = READ_ONCE(s->word);
    begin(n, (u32)word);
    hear(n, active(s, word), p, (u8)(word >> 48), now);
    if (forwarded) {
        __sync_fetch_and_add(&n->packets, p->segments);
        __sync_fetch_and_add(&n->bytes, p->length - UDP);
    } else {
        __sync_fetch_and_add(&n->undeliverable, p->segments);
    }
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

/* Give the packet the size and the IP version that it leaves with. 0: done; the packet is as it was if not. */
INLINE int reshape(struct __sk_buff *skb, u32 *at, const struct packet *p, const struct route *r)
{
    u16 type = be16(r->flags & FLAG_V6 ? TYPE_IPV6 : TYPE_IPV4);

    if (!*at) { /* redirect_neigh wants an Ethernet header */
        if (skb_change_head(skb, ETHERNET, 0))
            return -1;
        *at = ETHERNET;
    }
    if (skb->len > *at + p->ip_length) /* an Ethernet frame has at least 60 bytes */
        skb_change_tail(skb, *at + p->ip_length, 0);
    if (skb->protocol == type)
        return 0;
    if (skb_change_proto(skb, type, 0))
        return -1;
    skb_store_bytes(skb, *at - sizeof(type), &type, sizeof(type), 0);
    return 0;
}

INLINE int send(struct __sk_buff *skb, u32 at, const struct packet *p, const struct route *r, u8 ttl)
{
    if (rewrite(skb, at, p, r, ttl))
        return drop(REASON_UNDELIVERABLE);
    count(REASON_FORWARDED);
    *(volatile u32 *)&skb->mark = 0; /* volatile: two fields, two writes. What other programs wrote was for the packet that came */
    *(volatile u32 *)&skb->queue_mapping = 0;
    return redirect_neigh(r->ifindex, 0, 0, 0);
}

/* A packet from the source of slot `s`. */
INLINE int forward(struct __sk_buff *skb, u32 at, struct control *c, const struct packet *p, struct route *r,
                   u32 index, const struct slot *s, u64 word, struct counters *n, u64 now)
{
    u32 hops[HOPS] = {}, last = 0, reason = REASON_LOOP, up;
    u32 i;

    UNROLL
    for (i = 0; i < HOPS; i++) {
        hops[i] = index;
        last = i;
        reason = find_route(c, s, word, r);
        if (reason)
            break;
        s = shortcut(c, r, &index, &word);
        if (!s)
            break;
        reason = REASON_LOOP;
    }
    if (!reason && p->ttl <= last + 1)
        reason = REASON_TTL;
    up = reason == REASON_UP_CHANGED ? reason : reason ? 0 : unfit(skb, p, r);
    if (!reason && !up && reshape(skb, &at, p, r))
        up = REASON_UP_UNCHANGED;
    if (up) {
        begin(n, (u32)word);
        return pass_up(c, n, 1, up, now);
    }
    UNROLL
    for (i = 0; i < HOPS; i++)
        if (i <= last)
            account(hops[i], p, !reason || i < last, now);
    return reason ? drop(reason) : send(skb, at, p, r, p->ttl - last - 1);
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

INLINE int relay(struct __sk_buff *skb, u32 at)
{
    u32 index = 0, zero = 0;
    struct control *c = map_lookup(&control, &zero);
    struct scratch *room = map_lookup(&scratch, &zero);
    const struct config *k;
    struct packet *p;
    struct counters *n;
    struct slot *s;
    u64 word, now;
    int verdict;

    if (!c || !room || skb->pkt_type != FOR_THIS_HOST)
        return TC_NEXT;
    p = &room->packet;
    verdict = parse(skb, at, c, p, &index);
    if (verdict != DONE)
        return verdict;
    s = map_lookup(&slots, &index);
    n = map_lookup(&counters, &index);
    if (!s || !n)
        return TC_NEXT;
    if (skb->vlan_present) {
        if (skb->vlan_tci & 0xfff) {
            count(REASON_VLAN);
            return TC_NEXT;
        }
        skb_vlan_pop(skb); /* a priority, no VLAN: the packet is for us */
    }
    word = READ_ONCE(s->word);
    if (state_of(word) == STATE_FREE)
        return drop(REASON_NOT_LENT);
    if (!well_formed(skb, at, p))
        return drop(REASON_MALFORMED);
    if (p->version == 6 && !p->checksum)
        return drop(REASON_NO_CHECKSUM);
    now = ktime_get_ns();
    k = active(s, word);
    if (state_of(word) == STATE_LEARNED && same(k->source, p->source) && k->source_port == p->source_port)
        return forward(skb, at, c, p, &room->route, index, s, word, n, now);
    return judge(c, p, s, word, n, now);
}

/* Interfaces with Ethernet headers. */
SEC("tc/ethernet") int tc_ethernet(struct __sk_buff *skb)
{
    return relay(skb, ETHERNET);
}

/* Interfaces without: tunnels. */
SEC("tc/plain") int tc_plain(struct __sk_buff *skb)
{
    return relay(skb, 0);
}

/* Packets that passed, to lent ports: they belong to the relay's socket whatever it is bound to. */
SEC("sk_lookup") int lookup(struct bpf_sk_lookup *ctx)
{
    u32 index = 0, zero = 0, which = ctx->family == FAMILY_INET6, port = ctx->local_port, ip[4];
    struct control *c = map_lookup(&control, &zero);
    struct slot *s;
    void *sk;

    if (!c || ctx->protocol != PROTO_UDP)
        return SK_PASS;
    ip[0] = READ_ONCE(ctx->local_ip6[0]); /* each on its own: contexts are read by plain offsets only */
    ip[1] = READ_ONCE(ctx->local_ip6[1]);
    ip[2] = READ_ONCE(ctx->local_ip6[2]);
    ip[3] = READ_ONCE(ctx->local_ip6[3]);
    if (!which)
        mapped(ip, ctx->local_ip4);
    if (!slot_index(c, ip, be16(port), &index))
        return SK_PASS;
    s = map_lookup(&slots, &index);
    if (!s || state_of(READ_ONCE(s->word)) == STATE_FREE)
        return SK_PASS;
    sk = map_lookup(&sockets, &which);
    if (!sk)
        return SK_PASS;
    sk_assign(ctx, sk, 0);
    sk_release(sk);
    return SK_PASS;
}

#ifdef SOURCES
char _sources[] SEC("sources") = SOURCES; /* hatch_build.py: which sources this was made of */
#endif
char _license[] SEC("license") = "Dual MIT/GPL";

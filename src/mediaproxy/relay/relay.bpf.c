/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The kernel's part of the relay: UDP packets that come to lent ports, at the ingress of every interface.
 *
 * A packet from exactly a slot's learned source leaves at once, from the peer's address and port to the peer's target.
 * Everything else that may change a decision of the relay is passed up to its socket, as much as that can need; the rest
 * is dropped, without a sound, unless another program has a socket there. relay/packetpath.py is the specification of
 * the verdict and of every byte; docs/kernel.md says why. Packets are read and written by helpers only, so that nobody else's packets are ever copied because of us.
 */
#include "forward.bpf.h"
#include "xdp.bpf.h"

/* Whether another program waits at the port of a packet. Sockets bound elsewhere do not count: those are what the lookup
   programs of other relays say. */
CALLED int others(struct __sk_buff *skb, const struct packet *p)
{
    struct bpf_sock *sk;
    union ends ends = {};
    int bound;

    if (p->version == 4) {
        ends.v4.source = p->source[3];
        ends.v4.destination = p->destination[3];
        ends.v4.source_port = p->source_port;
        ends.v4.destination_port = p->destination_port;
        sk = find_socket(skb, &ends, sizeof(ends.v4), OWN_NETNS, 0);
    } else {
        copy(ends.v6.source, p->source);
        copy(ends.v6.destination, p->destination);
        ends.v6.source_port = p->source_port;
        ends.v6.destination_port = p->destination_port;
        sk = find_socket(skb, &ends, sizeof(ends.v6), OWN_NETNS, 0);
    }
    if (!sk)
        return 0;
    bound = sk->port == be16(p->destination_port);
    sk_release(sk);
    return bound;
}

/* A packet to a port that is not lent. */
INLINE int not_lent(struct __sk_buff *skb, struct control *c, const struct packet *p)
{
    if (c->retiring)
        return TC_NEXT;
    if (!others(skb, p))
        return drop(REASON_NOT_LENT);
    count(REASON_OTHERS);
    return TC_NEXT;
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
    READ_ONCE(n->generation); /* so that memory is asked for both at once: reading the clock waits for what was asked */
    if (state_of(word) == STATE_FREE)
        return not_lent(skb, c, p);
    if (!well_formed(skb, at, p))
        return drop(REASON_MALFORMED);
    if (p->version == 6 && !p->checksum)
        return drop(REASON_NO_CHECKSUM);
    now = ktime_get_ns();
    k = active(s, word);
    if (state_of(word) == STATE_LEARNED && same(k->source, p->source) && k->source_port == p->source_port) {
        if (!aside(k, p))
            return forward(skb, at, c, room, s, word, n, now);
        begin(n, (u32)word);
        return pass_up(c, n, 1, REASON_UP, now);
    }
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

/* Network cards that were asked for it, in addition. */
SEC("xdp") int xdp_frame(struct xdp_md *ctx)
{
    return relay_frame(ctx);
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

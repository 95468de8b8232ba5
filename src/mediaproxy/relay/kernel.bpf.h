/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What the program needs of the kernel's interface: the two contexts, helpers by their number, map definitions.
 * Written here, so that the program compiles without any header: with ziglang's clang and with a distribution's alike.
 * Numbers and offsets are those of include/uapi/linux/bpf.h; the kernel never changes them.
 */
#pragma once
#include "words.bpf.h"

#define SEC(name) __attribute__((section(name), used))

/* Map definitions, read from BTF as libbpf does (relay/bpf/object.py). */
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, value) typeof(value) *name
enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_SOCKMAP = 15 };
enum { MAP_MMAPABLE = 1 << 10 };

/* struct __sk_buff: the context of a classifier. */
struct __sk_buff {
    u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
    u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end, napi_id;
    u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port, data_meta;
    u64 flow_keys, tstamp;
    u32 wire_len, gso_segs;
    u64 sk;
    u32 gso_size;
};

/* struct xdp_md: the context of an XDP program. */
struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

/* struct bpf_fib_lookup, as the output of an interface. */
struct fib_lookup {
    u8 family, l4_protocol;
    u16 source_port, target_port, total_length;
    u32 ifindex, flow, source[4], target[4], vlan;
    u8 source_mac[6], target_mac[6];
};

/* struct bpf_redir_neigh: who takes what redirect_neigh sends. */
struct neighbour {
    u32 family;
    u32 address[4]; /* IPv4: the first */
};

/* struct bpf_sk_lookup: the context of a socket lookup. */
struct bpf_sk_lookup {
    u64 sk;
    u32 family, protocol, remote_ip4, remote_ip6[4];
    u16 remote_port, : 16;
    u32 local_ip4, local_ip6[4], local_port, ingress_ifindex;
};

/* struct bpf_sock_tuple: the ends of a packet, for find_socket. The size tells which. */
union ends {
    struct {
        u32 source, destination;
        u16 source_port, destination_port;
    } v4;
    struct {
        u32 source[4], destination[4];
        u16 source_port, destination_port;
    } v6;
};

/* struct bpf_sock, as far as it is needed. */
struct bpf_sock {
    u32 bound_dev_if, family, type, protocol, mark, priority, ip4, ip6[4], port;
};

enum { TC_NEXT = -1, TC_DROP = 2 };
enum { SK_PASS = 1 };
enum { XDP_PASS = 2 };
enum { FAMILY_INET = 2, FAMILY_INET6 = 10 };
enum { LOOPBACK = 1 }; /* the index of lo in every network namespace */
enum { FOR_THIS_HOST = 0 }; /* pkt_type */

/* Helpers; what they do is in bpf-helpers(7). */
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static u64 (*const ktime_get_ns)(void) = (void *)5;
static long (*const skb_store_bytes)(struct __sk_buff *, u32 offset, const void *, u32 size, u64 flags) = (void *)9;
static long (*const l4_csum_replace)(struct __sk_buff *, u32 offset, u64 from, u64 to, u64 flags) = (void *)11;
static long (*const skb_vlan_pop)(struct __sk_buff *) = (void *)19;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const skb_load_bytes)(const void *skb, u32 offset, void *to, u32 size) = (void *)26;
static long (*const skb_change_proto)(struct __sk_buff *, u16 protocol, u64 flags) = (void *)31;
static long (*const skb_change_tail)(struct __sk_buff *, u32 size, u64 flags) = (void *)38;
static s64 (*const csum_update)(struct __sk_buff *, u32 sum) = (void *)40;
static long (*const skb_change_head)(struct __sk_buff *, u32 size, u64 flags) = (void *)43;
static long (*const find_neighbour)(void *ctx, struct fib_lookup *, int size, u32 flags) = (void *)69;
static struct bpf_sock *(*const find_socket)(void *ctx, union ends *, u32 size, u64 netns, u64 flags) = (void *)85;
static long (*const sk_release)(void *sk) = (void *)86;
static s64 (*const csum_level)(struct __sk_buff *, u64 what) = (void *)135;
static long (*const sk_assign)(struct bpf_sk_lookup *, void *sk, u64 flags) = (void *)124;
static long (*const store_frame)(struct xdp_md *, u32 offset, const void *, u32 size) = (void *)190;
static u64 (*const frame_length)(struct xdp_md *) = (void *)188;
static long (*const redirect_neigh)(u32 ifindex, struct neighbour *, int size, u64 flags) = (void *)152;

#define OWN_NETNS ((u64)-1) /* of find_socket */
enum { FIB_OUTPUT = 2 }; /* of find_neighbour */
enum { CSUM_LEVEL_QUERY = 0 };
enum { PSEUDO_HEADER = 1 << 4, ZERO_STAYS_ZERO = 1 << 5 }; /* of l4_csum_replace */

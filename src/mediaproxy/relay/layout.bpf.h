/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The values that the relay shares with the kernel program and with fastpath.c. relay/slots.py says the same in Python; a
 * test and every load compare the two. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; addresses and ports are in
 * network order, all else in the host's.
 */
#pragma once
#include "words.bpf.h"

enum { PREFIXES = 4, CLOCKS = 11, ADDRESSES = 8, EXTENSIONS = 6, SHORTCUTS = 2, REASONS = 32 };

/* The word of a slot, stored in one piece: generation | copy << 32 | state << 40 | change << 48. */
enum state {
    STATE_FREE = 0,     /* not lent: everything is dropped, but what is another program's */
    STATE_DEAF = 1,     /* lent, nobody is expected: told at the rate of strangers, never forwarded */
    STATE_LEARNING = 2, /* who is allowed is passed up */
    STATE_LEARNED = 3,  /* what comes from the source is forwarded */
};

enum flag {
    FLAG_V6 = 1,      /* the slot's own address is IPv6 */
    FLAG_TARGET = 2,  /* target is known */
    FLAG_TOS = 4,     /* tos replaces the DSCP of what leaves from here; else it is kept */
    FLAG_ANY = 8,     /* every source is allowed */
    FLAG_SETTLED = 16, /* LEARNED, and only calls.md 6 may move it: most allowed packets cannot */
    FLAG_OWN = 32,    /* target is an address and port of this relay */
    FLAG_RTP_ONLY = 64, /* what is no RTP of the source is passed up */
    FLAG_XDP = 128, /* ifindex has the XDP program, so XDP may send what leaves from here */
};

/* One copy of a slot's configuration. Forwarding reads the first 56 bytes, and gateway of the slot that a packet leaves
   from. */
struct config {
    u32 source[4];       /* LEARNED: packets from exactly here are forwarded */
    u32 target[4];       /* where what leaves from here is sent */
    u32 peer;            /* index of the slot that faces the other party */
    u32 peer_generation; /* nothing is forwarded to the peer's port of another lending */
    u32 ifindex;         /* the interface towards target */
    u16 source_port;
    u16 target_port;
    u16 mtu;             /* longest IP packet on that interface; 0: not checked */
    u8 address;          /* index of the own address in control.addresses */
    u8 tos;
    u8 flags;
    u8 via;              /* IP version of gateway; 0: the host's routing is asked for each packet */
    u8 spare[2];
    u32 gateway[4];      /* the neighbour on that interface that takes it: a router, or target itself */
    u32 allowed[PREFIXES][4]; /* prefixes whose packets may change a decision */
    u8 bits[PREFIXES];        /* their lengths, IPv4 plus 96; 0: unused */
    u32 clocks[CLOCKS];       /* RTP clocks: nanoseconds per timestamp unit times 32 << 7 | payload type */
};

/* One local port. Written by the relay only. */
struct slot {
    u64 word;
    struct config copies[2];
    u64 spare;
};

/* What came to one local port since its generation was lent. Written by the program only. */
struct counters {
    u64 packets;       /* from source, forwarded */
    u64 bytes;         /* their UDP payload */
    u64 last;          /* CLOCK_MONOTONIC of the last packet from source, nanoseconds; 0: none */
    u64 arrived;       /* the first RTP packet of the last timestamp */
    u32 rtp;           /* RTP packets from source */
    s32 lost;          /* RFC 3550 6.4.1: how many more the sequence numbers say were sent; duplicates count below 0 */
    u32 jitter;        /* RFC 3550 6.4.1, in nanoseconds times 16; at most 268 ms */
    u32 tick;          /* nanoseconds per timestamp unit of the last RTP packet, times 32; 0: not known */
    u32 ssrc;          /* of the last RTP packet, host order */
    u32 timestamp;
    u16 sequence;
    u8 payload_type;   /* plus 128 once an RTP packet has come */
    u8 change;         /* for which change of the slot tick was looked up */
    u32 generation;    /* whose these counters are */
    u64 undeliverable; /* from source, with nowhere to go */
    u64 dropped;       /* from elsewhere, and not passed up */
    u64 passed;        /* passed up */
    u64 ranked;        /* two token buckets: when each is empty again, CLOCK_MONOTONIC nanoseconds */
    u64 strangers;
    u64 undeliverable_bytes; /* the UDP payload of those */
    u64 spare[2];
};

/* A token bucket: one packet costs interval nanoseconds, and burst nanoseconds may be owed. */
struct bucket {
    u32 interval;
    u32 burst;
};

/* One for all slots. Written by the relay only. */
struct control {
    u64 heartbeat;        /* CLOCK_MONOTONIC nanoseconds when the relay was last seen alive */
    u64 alive;            /* nanoseconds that it counts as alive after that */
    u64 layout;           /* hash of these structs (relay/slots.py) */
    u64 silence;          /* calls.md 6: nanoseconds of silence after which another port may replace the source */
    u32 ahead;            /* calls.md 6: sequence numbers that a moved stream may be ahead */
    u16 port_min;         /* host order */
    u16 ports;            /* per address */
    struct bucket ranked; /* per slot, for sources that may change a decision */
    struct bucket strangers; /* per slot, for all others */
    struct bucket spray;  /* the same for all slots together, per CPU */
    u32 count;            /* of addresses */
    u32 retiring;         /* not 0: others may have ports that are not lent here */
    u32 addresses[ADDRESSES][4]; /* unused: 0. The slot of a port: index here * ports + port - port_min */
};

/* What became of packets to the relay's addresses: each is counted once. */
enum reason {
    REASON_FORWARDED,
    /* passed up to user space */
    REASON_UP,
    REASON_UP_FRAGMENT,    /* of the source: a first fragment; the others go to the host's reassembly uncounted here */
    REASON_UP_OPTIONS,     /* of the source: IPv4 options or IPv6 extension headers */
    REASON_UP_TOO_BIG,     /* longer than the way out carries */
    REASON_UP_NO_CHECKSUM, /* IPv4 without UDP checksum, and it has to become IPv6 */
    REASON_UP_CHANGED,     /* the slot was written meanwhile */
    REASON_UP_NO_ROOM,   /* the kernel could not make room for another IP header */
    /* left to the host */
    REASON_FRAGMENT,       /* a later fragment: it has no port */
    REASON_VLAN,           /* tagged: the VLAN's own interface sees it again */
    /* dropped */
    REASON_NOT_LENT,
    REASON_NO_PROCESS,     /* it would have been passed up, but no relay is alive */
    REASON_REFUSED,        /* nobody's, or cannot change a decision; more than enough of such were passed up */
    REASON_FLOOD,          /* could change a decision, but more came than a decision needs */
    REASON_UNDELIVERABLE,  /* of the source: peer or target missing */
    REASON_TTL,            /* of the source: TTL or hop limit used up */
    REASON_LOOP,           /* more than two legs of this relay in a row */
    REASON_MALFORMED,      /* lengths or IPv4 header checksum wrong */
    REASON_NO_CHECKSUM,    /* IPv6 without UDP checksum (RFC 8200 8.1) */
    /* left to the host, too */
    REASON_OTHERS,         /* not lent, and another program has a socket at that port */
    REASON_COUNT,
};

/* Per CPU. Written by the program only. */
struct totals {
    u64 reasons[REASONS];
    u64 strangers; /* bucket "spray" */
    u64 which;     /* scratch: the reason that is being counted */
};

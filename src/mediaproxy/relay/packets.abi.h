/* SPDX-License-Identifier: MIT
 *
 * What fastpath.c has in memory, and what becomes of one packet that came to a slot. The rules are rules.bpf.h.
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "python.abi.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "layout.bpf.h"

/* What the rules want to know of a packet. */
struct packet {
    u32 source[4], rtp[3];
    u16 source_port, segments;
    u8 is_rtp, scoped; /* scoped: from a link-local address, which is never a learned source */
};

#include "rules.bpf.h"

enum { EVENTS = 64, BATCH = 16, LARGEST = 65536, ERRNOS = 256 };
enum { QUEUE = 1 << 20, ALIGN = 8 }; /* bytes; a record is never longer than LARGEST and its head */
enum { STOP = -1, SKIP = -1 };
enum verdict { DROPPED, PASSED_UP, SENT };

#define load(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define store(x, value) __atomic_store_n(&(x), value, __ATOMIC_RELEASE)

/* A packet that was passed up, with the slot's counters at that time; its bytes follow. */
struct record {
    u32 size; /* of all of it, in the queue */
    s32 index; /* SKIP: the queue goes on at its beginning */
    u32 generation, length, source[4];
    u16 port, spare[3];
    struct counters counters;
};

/* One writer, one reader: positions only grow. */
struct queue {
    u32 written, read;
    u8 bytes[QUEUE] __attribute__((aligned(ALIGN)));
};

struct way {
    int fd;
    struct sockaddr_in6 to; /* large enough for the other family */
    socklen_t length;
};

/* What one thread has. */
struct worker {
    u64 turn; /* odd while it may use sockets */
    u64 errors[ERRNOS];
    int epoll;
    struct queue up;
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec in_bytes[BATCH], out_bytes[BATCH];
    struct sockaddr_in6 from[BATCH];
    struct way ways[BATCH];
    u8 room[BATCH][LARGEST];
};

typedef struct {
    PyObject_HEAD
    struct slot *slots;
    struct counters *counters;
    int *fds; /* -1: none */
    u32 count, threads;
    struct bucket ranked, strangers, spray;
    u64 sprayed; /* the bucket of strangers at all slots together */
    int wake, stop;
    u32 told; /* whether Python was told that there is something to take */
    struct worker *workers;
    Py_buffer lent;
} Path;

static u64 clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

/* -- one packet */

static void read_source(struct packet *p, const struct sockaddr_in6 *from)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)from;

    p->scoped = 0;
    if (from->sin6_family == AF_INET6) {
        memcpy(p->source, &from->sin6_addr, 16);
        p->source_port = from->sin6_port;
        p->scoped = from->sin6_scope_id != 0;
    } else {
        p->source[0] = p->source[1] = 0, p->source[2] = be32(0xffff), p->source[3] = four->sin_addr.s_addr;
        p->source_port = four->sin_port;
    }
}

static void read_rtp(struct packet *p, const u8 *data, u32 size)
{
    p->segments = 1;
    p->is_rtp = size >= 12 && data[0] >> 6 == 2 && (data[1] < 192 || data[1] > 223); /* RFC 5761 4 */
    if (!p->is_rtp)
        return;
    memcpy(p->rtp, data, 12);
    p->rtp[0] = be32(p->rtp[0]), p->rtp[1] = be32(p->rtp[1]), p->rtp[2] = be32(p->rtp[2]);
}

static void read_target(struct way *w, const struct config *k)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&w->to;

    if (k->flags & FLAG_V6) {
        w->to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = k->target_port};
        memcpy(&w->to.sin6_addr, k->target, 16);
        w->length = sizeof(struct sockaddr_in6);
    } else {
        *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = k->target_port};
        four->sin_addr.s_addr = k->target[3];
        w->length = sizeof(struct sockaddr_in);
    }
}

/* Where packets of a slot with this configuration leave. 0: nowhere. */
static int find_way(Path *h, const struct config *k, struct way *w)
{
    struct slot *peer;
    const struct config *to;
    u64 word;
    int known;

    if (!k->peer_generation || k->peer >= h->count)
        return 0;
    peer = &h->slots[k->peer];
    do {
        word = load(peer->word);
        if ((u32)word != k->peer_generation || state_of(word) < STATE_LEARNING)
            return 0;
        to = active(peer, word);
        known = to->flags & FLAG_TARGET;
        read_target(w, to);
        w->fd = load(h->fds[k->peer]);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (load(peer->word) != word);
    return known && w->fd >= 0;
}

struct standing {
    u64 word;
    int learned; /* it is from exactly the source: forwarded, if there is a way */
    int way;
    int ranked; /* it may change a decision */
};

/* How a packet stands to a slot as it is configured now. */
static void stand(Path *h, struct slot *s, const struct packet *p, struct standing *is, struct way *w)
{
    const struct config *k;

    do {
        is->word = load(s->word);
        k = active(s, is->word);
        is->learned = state_of(is->word) == STATE_LEARNED && k->source_port == p->source_port &&
                      same(k->source, p->source) && !p->scoped;
        is->ranked = is->learned || (state_of(is->word) >= STATE_LEARNING && allowed(k, p->source));
        is->learned = is->learned && !aside(k, p);
        is->way = is->learned && find_way(h, k, w);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (load(s->word) != is->word);
}

/* The bucket that all threads share. */
static int take_spray(Path *h, u64 now)
{
    u64 seen = load(h->sprayed), full;

    do {
        full = seen;
        if (!take(&full, &h->spray, now))
            return 0;
    } while (!__atomic_compare_exchange_n(&h->sprayed, &seen, full, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return 1;
}

/* What becomes of a packet to a slot of this generation. One that is to be sent counts as forwarded already, so that
 * nobody hears it before it counts. */
static enum verdict judge(Path *h, u32 index, u32 generation, const struct packet *p, u32 size, u64 now, struct way *w)
{
    struct slot *s = &h->slots[index];
    struct counters *n = &h->counters[index];
    struct standing is;

    stand(h, s, p, &is, w);
    if ((u32)is.word != generation || state_of(is.word) == STATE_FREE)
        return DROPPED; /* not lent any more, or lent anew */
    begin(n, generation);
    if (is.learned) {
        hear(n, active(s, is.word), p, is.word >> 48, now);
        if (!is.way) {
            n->undeliverable_bytes += size;
            n->undeliverable++;
            return DROPPED;
        }
        n->bytes += size;
        n->packets++;
        return SENT;
    }
    if (is.ranked ? take(&n->ranked, &h->ranked, now)
                  : take(&n->strangers, &h->strangers, now) && take_spray(h, now))
        return PASSED_UP;
    n->dropped++;
    return DROPPED;
}

static void not_sent(Path *h, u32 index, u32 size)
{
    struct counters *n = &h->counters[index];

    n->packets--;
    n->bytes -= size;
    n->undeliverable_bytes += size;
    n->undeliverable++;
}

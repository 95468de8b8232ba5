/* SPDX-License-Identifier: MIT
 *
 * The threads of fastpath.c: each waits for its sockets, sends a batch on, and puts what Python must see into its queue.
 */
#pragma once
#include "packets.abi.h"

/* -- what goes up to Python */

/* Whether there was room. */
static int put(struct queue *q, const struct record *r, const u8 *data)
{
    u32 at = q->written & (QUEUE - 1), skip = at + r->size > QUEUE ? QUEUE - at : 0;
    s32 mark = SKIP;

    if (q->written - load(q->read) + skip + r->size > QUEUE)
        return 0;
    if (skip) {
        memcpy(q->bytes + at, &skip, 4);
        memcpy(q->bytes + at + 4, &mark, 4);
        at = 0;
    }
    memcpy(q->bytes + at, r, sizeof(*r));
    memcpy(q->bytes + at + sizeof(*r), data, r->length);
    store(q->written, q->written + skip + r->size);
    return 1;
}

static void tell(Path *h)
{
    if (!__atomic_exchange_n(&h->told, 1, __ATOMIC_SEQ_CST))
        (void)!write(h->wake, &(u64){1}, 8);
}

static void pass_up(Path *h, struct worker *w, u32 index, u32 generation, const struct packet *p, const u8 *data, u32 size)
{
    struct counters *n = &h->counters[index];
    struct record r = {
        .size = (sizeof(r) + size + ALIGN - 1) & ~(ALIGN - 1), .index = (s32)index, .generation = generation,
        .length = size, .port = p->source_port, .counters = *n,
    };

    memcpy(r.source, p->source, 16);
    if (put(&w->up, &r, data))
        n->passed++;
    else
        n->dropped++;
    tell(h);
}

/* -- one thread */

/* The thread that serves a slot. Calls bind RTP, RTCP, RTP, RTCP in turn, and video after voice: whatever the stride is in
   which the loud ones come, multiples of the golden ratio (2^32 / 1.618) lie evenly. */
static struct worker *worker_of(Path *h, u32 index)
{
    return &h->workers[(u64)((index >> 1) * 0x9e3779b1u) * h->threads >> 32];
}

/* Send a batch, in pieces of one socket. */
static void send_out(Path *h, struct worker *w, u32 index, u32 count)
{
    u32 done = 0, end;

    while (done < count) {
        int fd = w->ways[done].fd, sent;

        for (end = done + 1; end < count && w->ways[end].fd == fd; end++)
            ;
        sent = sendmmsg(fd, w->out + done, end - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            done += (u32)sent;
        } else if (errno != EINTR) {
            w->errors[errno < ERRNOS ? errno : 0]++;
            not_sent(h, index, (u32)w->out_bytes[done].iov_len);
            done++;
        }
    }
}

/* Read what came to a slot's socket, at most one batch, and do with it what is to be done. */
static void serve(Path *h, struct worker *w, u32 index)
{
    u32 generation, i, out = 0;
    struct packet p;
    int got, fd = load(h->fds[index]);
    u64 now;

    if (fd < 0)
        return;
    generation = (u32)load(h->slots[index].word); /* what is read now came to this lending or to an earlier one */
    got = recvmmsg(fd, w->in, BATCH, MSG_DONTWAIT, NULL);
    now = clock_ns();
    for (i = 0; got > 0 && i < (u32)got; i++) {
        u32 size = w->in[i].msg_len;

        w->in[i].msg_hdr.msg_namelen = sizeof(struct sockaddr_in6);
        read_source(&p, &w->from[i]);
        read_rtp(&p, w->room[i], size);
        switch (judge(h, index, generation, &p, size, now, &w->ways[out])) {
        case SENT:
            w->out_bytes[out] = (struct iovec){w->room[i], size};
            w->out[out].msg_hdr.msg_namelen = w->ways[out].length;
            out++;
            break;
        case PASSED_UP:
            pass_up(h, w, index, generation, &p, w->room[i], size);
            break;
        case DROPPED:
            break;
        }
    }
    send_out(h, w, index, out);
}

static void work(Path *h, struct worker *w)
{
    struct epoll_event events[EVENTS];
    int got, i, stopped = 0;

    while (!stopped) {
        got = epoll_wait(w->epoll, events, EVENTS, -1);
        __atomic_add_fetch(&w->turn, 1, __ATOMIC_SEQ_CST);
        for (i = 0; i < got; i++) {
            if ((s32)events[i].data.u32 == STOP)
                stopped = 1;
            else
                serve(h, w, events[i].data.u32);
        }
        __atomic_add_fetch(&w->turn, 1, __ATOMIC_SEQ_CST);
    }
}

/* Wait until no thread uses a socket that it has looked up before. */
static void wait_for_turns(Path *h)
{
    u32 i;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (i = 0; i < h->threads; i++) {
        u64 turn = __atomic_load_n(&h->workers[i].turn, __ATOMIC_SEQ_CST);

        while (turn & 1 && __atomic_load_n(&h->workers[i].turn, __ATOMIC_SEQ_CST) == turn)
            sched_yield();
    }
}

/* -- beginning and end */

static int init_worker(Path *h, struct worker *w)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (u32)STOP};
    u32 i;

    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, h->stop, &event))
        return -1;
    for (i = 0; i < BATCH; i++) {
        w->in_bytes[i] = (struct iovec){w->room[i], LARGEST};
        w->in[i].msg_hdr = (struct msghdr){
            .msg_name = &w->from[i], .msg_namelen = sizeof(w->from[i]), .msg_iov = &w->in_bytes[i], .msg_iovlen = 1};
        w->out[i].msg_hdr = (struct msghdr){.msg_name = &w->ways[i].to, .msg_iov = &w->out_bytes[i], .msg_iovlen = 1};
    }
    return 0;
}

static void *pages(size_t size)
{
    void *got = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return got == MAP_FAILED ? NULL : got;
}

/* 0, or -1 with errno. */
static int init(Path *h)
{
    u32 i;

    h->counters = h->lent.buf;
    h->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h->slots = pages(h->count * sizeof(struct slot));
    h->fds = pages(h->count * sizeof(int));
    h->workers = pages(h->threads * sizeof(struct worker));
    for (i = 0; h->workers && i < h->threads; i++)
        h->workers[i].epoll = -1;
    if (h->stop < 0 || !h->slots || !h->fds || !h->workers)
        return -1;
    memset(h->fds, 0xff, h->count * sizeof(int));
    for (i = 0; i < h->threads; i++)
        if (init_worker(h, &h->workers[i]))
            return -1;
    return 0;
}

/* Give back what init() took, all of it or some. */
static void undo(Path *h)
{
    u32 i;

    for (i = 0; h->workers && i < h->threads; i++)
        if (h->workers[i].epoll >= 0)
            close(h->workers[i].epoll);
    if (h->stop >= 0)
        close(h->stop);
    if (h->slots)
        munmap(h->slots, h->count * sizeof(struct slot));
    if (h->fds)
        munmap(h->fds, h->count * sizeof(int));
    if (h->workers)
        munmap(h->workers, h->threads * sizeof(struct worker));
}

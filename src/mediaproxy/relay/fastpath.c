/* SPDX-License-Identifier: MIT
 *
 * Learned streams in user space without Python: native.py lends sockets to this, one thread per core serves them.
 *
 * Each thread waits for its sockets, reads what came in batches, sends what is from a slot's source on by the peer's
 * socket, and puts the rest into a queue of bounded size for Python. Slots, counters and rules are those of the kernel
 * program (layout.bpf.h, rules.bpf.h). Threads hold no GIL and take no lock: a slot is changed by writing the copy that
 * is not in use, then its word. What must never happen: that a packet of one lending is heard in another one, that a
 * socket is used after it was closed, that a full queue stops forwarding.
 */
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
    n->undeliverable++;
}

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

/* -- what Python sees */

static PyObject *none(void)
{
    Py_IncRef(Py_None);
    return Py_None;
}

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

/* Path(counters, threads, wake, ranked, strangers, spray): for as many slots as ``counters`` has room for. ``wake``: an
 * eventfd that becomes readable when there is something to take. The rates are (nanoseconds per packet, nanoseconds
 * that may be owed). */
static PyObject *path_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_buffer lent;
    u32 threads;
    int wake;
    struct bucket a, b, c;
    Path *h;

    (void)kwargs;
    if (!PyArg_ParseTuple(args, "w*Ii(II)(II)(II)", &lent, &threads, &wake, &a.interval, &a.burst, &b.interval, &b.burst,
                          &c.interval, &c.burst))
        return NULL;
    h = (Path *)PyType_GenericAlloc(type, 0);
    if (!h) {
        PyBuffer_Release(&lent);
        return NULL;
    }
    h->lent = lent;
    h->count = (u32)((size_t)lent.len / sizeof(struct counters));
    h->threads = threads;
    h->wake = wake;
    h->ranked = a, h->strangers = b, h->spray = c;
    h->stop = -1;
    if (threads < 1 || threads > 1024 || h->count < 1 || (size_t)lent.buf % sizeof(u64))
        PyErr_SetString(PyExc_ValueError, "threads, or room for counters");
    else if (!init(h))
        return (PyObject *)h;
    else
        PyErr_SetFromErrno(PyExc_OSError);
    Py_DecRef((PyObject *)h);
    return NULL;
}

static void path_dealloc(PyObject *self)
{
    Path *h = (Path *)self;
    PyTypeObject *type = Py_TYPE(self);
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
    PyBuffer_Release(&h->lent);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DecRef((PyObject *)type);
}

/* The index of a slot, or ValueError. */
static int valid(Path *h, u32 index)
{
    if (index < h->count)
        return 1;
    PyErr_SetString(PyExc_ValueError, "no such slot");
    return 0;
}

/* add(index, fd): the socket of a slot, from now on served by a thread. It must not block. OSError. */
static PyObject *path_add(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    struct epoll_event event = {.events = EPOLLIN};
    u32 index;
    int fd;

    if (!PyArg_ParseTuple(args, "Ii", &index, &fd) || !valid(h, index))
        return NULL;
    event.data.u32 = index;
    store(h->fds[index], fd);
    if (epoll_ctl(h->workers[index % h->threads].epoll, EPOLL_CTL_ADD, fd, &event)) {
        store(h->fds[index], -1);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return none();
}

/* drop(index): the same slot without a socket. When it returns, no thread uses the socket: it can be closed. */
static PyObject *path_drop(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    PyThreadState *python;
    u32 index;
    int fd;

    if (!PyArg_ParseTuple(args, "I", &index) || !valid(h, index))
        return NULL;
    fd = __atomic_exchange_n(&h->fds[index], -1, __ATOMIC_SEQ_CST);
    if (fd >= 0)
        epoll_ctl(h->workers[index % h->threads].epoll, EPOLL_CTL_DEL, fd, NULL);
    python = PyEval_SaveThread();
    wait_for_turns(h);
    PyEval_RestoreThread(python);
    return none();
}

/* set(index, generation, state, config): lend a slot, or change it; ``config`` as slots.encode() makes it. */
static PyObject *path_set(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    u32 index, generation, state;
    Py_buffer config;
    struct slot *s;
    u64 word, copy;

    if (!PyArg_ParseTuple(args, "IIIy*", &index, &generation, &state, &config))
        return NULL;
    if (!valid(h, index) || config.len != sizeof(struct config) || state > STATE_LEARNED) {
        PyBuffer_Release(&config);
        PyErr_SetString(PyExc_ValueError, "no such slot, state or configuration");
        return NULL;
    }
    s = &h->slots[index];
    word = s->word;
    copy = 1 - (word >> 32 & 1);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* who reads what is written here sees the word of the last change, too */
    memcpy(&s->copies[copy], config.buf, sizeof(struct config));
    store(s->word, generation | copy << 32 | (u64)state << 40 | ((word >> 48) + 1) << 48);
    PyBuffer_Release(&config);
    return none();
}

/* free(index): from now on what comes to the slot is dropped silently. */
static PyObject *path_free(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    u32 index;

    if (!PyArg_ParseTuple(args, "I", &index) || !valid(h, index))
        return NULL;
    store(h->slots[index].word, h->slots[index].word & ~((u64)255 << 40));
    return none();
}

/* run(number): serve sockets as thread ``number`` until stop(). Other threads of Python run meanwhile. */
static PyObject *path_run(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    PyThreadState *python;
    u32 number;

    if (!PyArg_ParseTuple(args, "I", &number))
        return NULL;
    if (number >= h->threads) {
        PyErr_SetString(PyExc_ValueError, "no such thread");
        return NULL;
    }
    python = PyEval_SaveThread();
    work(h, &h->workers[number]);
    PyEval_RestoreThread(python);
    return none();
}

static PyObject *path_stop(PyObject *self, PyObject *args)
{
    (void)args;
    (void)!write(((Path *)self)->stop, &(u64){1}, 8);
    return none();
}

/* A packet as Python sees it. */
static PyObject *taken(const struct record *r)
{
    PyObject *source = PyBytes_FromStringAndSize((const char *)r->source, 16);
    PyObject *counters = PyBytes_FromStringAndSize((const char *)&r->counters, sizeof(r->counters));
    PyObject *data = PyBytes_FromStringAndSize((const char *)(r + 1), r->length);

    if (source && counters && data)
        return Py_BuildValue("iINiNN", r->index, r->generation, source, (int)be16(r->port), data, counters);
    Py_DecRef(source);
    Py_DecRef(counters);
    Py_DecRef(data);
    return NULL;
}

/* Up to ``limit`` packets of one queue. 0, or -1 with an exception. */
static int take_from(struct queue *q, PyObject *list, u32 *limit)
{
    u32 at = q->read, end = load(q->written);

    while (at != end && *limit) {
        const struct record *r = (const struct record *)(q->bytes + (at & (QUEUE - 1)));
        PyObject *one;

        at += r->size;
        if (r->index == SKIP)
            continue;
        one = taken(r);
        if (!one || PyList_Append(list, one)) {
            Py_DecRef(one);
            return -1;
        }
        Py_DecRef(one);
        store(q->read, at);
        --*limit;
    }
    store(q->read, at);
    return 0;
}

/* take(limit): packets that were passed up, at most so many: [(index, generation, source, port, data, counters)].
 * ``wake`` is readable again if there are more. */
static PyObject *path_take(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    PyObject *list;
    u64 count;
    u32 limit, i;

    if (!PyArg_ParseTuple(args, "I", &limit))
        return NULL;
    list = PyList_New(0);
    if (!list)
        return NULL;
    (void)!read(h->wake, &count, sizeof(count));
    __atomic_store_n(&h->told, 0, __ATOMIC_SEQ_CST);
    for (i = 0; i < h->threads; i++) {
        if (take_from(&h->workers[i].up, list, &limit)) {
            Py_DecRef(list);
            return NULL;
        }
    }
    for (i = 0; i < h->threads; i++)
        if (h->workers[i].up.read != load(h->workers[i].up.written))
            tell(h);
    return list;
}

/* errors(): [(errno, packets that the network did not take)]. */
static PyObject *path_errors(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    PyObject *list = PyList_New(0);
    u32 number, i;

    (void)args;
    for (number = 0; list && number < ERRNOS; number++) {
        unsigned long long sum = 0;
        PyObject *one;

        for (i = 0; i < h->threads; i++)
            sum += load(h->workers[i].errors[number]);
        if (!sum)
            continue;
        one = Py_BuildValue("IK", number, sum);
        if (!one || PyList_Append(list, one)) {
            Py_DecRef(list);
            list = NULL;
        }
        Py_DecRef(one);
    }
    return list;
}

/* judge(index, generation, source, port, data, now): what would become of this packet that came to that lending of a
 * slot, for tests, while no thread runs. The verdict, and for 2 (sent) the socket that it leaves by, its address and its
 * port. Nothing is sent. */
static PyObject *path_judge(PyObject *self, PyObject *args)
{
    Path *h = (Path *)self;
    Py_buffer source, data;
    struct packet p = {.segments = 1};
    struct way w = {.fd = -1};
    PyObject *made = NULL;
    u32 index, generation, port;
    unsigned long long now;

    if (!PyArg_ParseTuple(args, "IIy*Iy*K", &index, &generation, &source, &port, &data, &now))
        return NULL;
    if (valid(h, index) && source.len == 16) {
        enum verdict verdict;

        memcpy(p.source, source.buf, 16);
        p.source_port = be16(port);
        read_rtp(&p, data.buf, (u32)data.len);
        verdict = judge(h, index, generation, &p, (u32)data.len, now, &w);
        if (verdict == SENT)
            made = Py_BuildValue("iiNi", verdict, w.fd, PyBytes_FromStringAndSize((const char *)&w.to, w.length),
                                 (int)be16(w.to.sin6_port));
        else
            made = Py_BuildValue("iiyi", verdict, -1, "", 0);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "a source has 16 bytes");
    }
    PyBuffer_Release(&source);
    PyBuffer_Release(&data);
    return made;
}

static PyMethodDef path_methods[] = {
    {"add", path_add, METH_VARARGS, NULL},   {"drop", path_drop, METH_VARARGS, NULL},
    {"set", path_set, METH_VARARGS, NULL},   {"free", path_free, METH_VARARGS, NULL},
    {"run", path_run, METH_VARARGS, NULL},   {"stop", path_stop, METH_NOARGS, NULL},
    {"take", path_take, METH_VARARGS, NULL}, {"errors", path_errors, METH_NOARGS, NULL},
    {"judge", path_judge, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL},
};

static PyType_Slot path_slots[] = {
    {Py_tp_new, (void *)path_new},
    {Py_tp_dealloc, (void *)path_dealloc},
    {Py_tp_methods, path_methods},
    {0, NULL},
};

static PyType_Spec path_spec = {
    .name = "mediaproxy.relay.fastpath.Path",
    .basicsize = sizeof(Path),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = path_slots,
};

/* -- the layout, for native.py to compare with slots.py */

#define FIELD(name, field) {#name, #field, offsetof(struct name, field), sizeof(((struct name *)0)->field)}

static const struct {
    const char *name, *field;
    size_t offset, size;
} layout[] = {
    FIELD(config, source), FIELD(config, target), FIELD(config, peer), FIELD(config, peer_generation),
    FIELD(config, ifindex), FIELD(config, source_port), FIELD(config, target_port), FIELD(config, mtu),
    FIELD(config, address), FIELD(config, tos), FIELD(config, flags), FIELD(config, spare), FIELD(config, allowed),
    FIELD(config, bits), FIELD(config, clocks), FIELD(config, more),
    FIELD(counters, packets), FIELD(counters, bytes), FIELD(counters, last), FIELD(counters, arrived),
    FIELD(counters, rtp), FIELD(counters, lost), FIELD(counters, jitter), FIELD(counters, tick), FIELD(counters, ssrc),
    FIELD(counters, timestamp), FIELD(counters, sequence), FIELD(counters, payload_type), FIELD(counters, change),
    FIELD(counters, generation), FIELD(counters, undeliverable), FIELD(counters, dropped), FIELD(counters, passed),
    FIELD(counters, ranked), FIELD(counters, strangers), FIELD(counters, spare),
};

static PyObject *module_layout(PyObject *self, PyObject *args)
{
    PyObject *list = PyList_New(0), *one;
    size_t i;

    (void)self, (void)args;
    for (i = 0; list && i < sizeof(layout) / sizeof(layout[0]); i++) {
        one = Py_BuildValue("ssnn", layout[i].name, layout[i].field, (Py_ssize_t)layout[i].offset,
                            (Py_ssize_t)layout[i].size);
        if (!one || PyList_Append(list, one)) {
            Py_DecRef(list);
            list = NULL;
        }
        Py_DecRef(one);
    }
    return list;
}

static PyMethodDef module_methods[] = {
    {"layout", module_layout, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&path_spec);
    int failed = !type || PyModule_AddObjectRef(module, "Path", type);

    Py_DecRef(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

#ifndef SOURCES
#define SOURCES "unknown" /* hatch_build.py: which sources this was made of */
#endif

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastpath",
    .m_doc = SOURCES,
    .m_methods = module_methods,
    .m_slots = module_slots,
};

__attribute__((visibility("default"))) PyObject *PyInit_fastpath(void)
{
    return PyModuleDef_Init(&module);
}

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
#include "threads.abi.h"

static PyObject *none(void)
{
    Py_IncRef(Py_None);
    return Py_None;
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

    undo(h);
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
    if (epoll_ctl(worker_of(h, index)->epoll, EPOLL_CTL_ADD, fd, &event)) {
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
        epoll_ctl(worker_of(h, index)->epoll, EPOLL_CTL_DEL, fd, NULL);
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
    FIELD(config, address), FIELD(config, tos), FIELD(config, flags), FIELD(config, via), FIELD(config, spare),
    FIELD(config, gateway), FIELD(config, allowed), FIELD(config, bits), FIELD(config, clocks),
    FIELD(counters, packets), FIELD(counters, bytes), FIELD(counters, last), FIELD(counters, arrived),
    FIELD(counters, rtp), FIELD(counters, lost), FIELD(counters, jitter), FIELD(counters, tick), FIELD(counters, ssrc),
    FIELD(counters, timestamp), FIELD(counters, sequence), FIELD(counters, payload_type), FIELD(counters, change),
    FIELD(counters, generation), FIELD(counters, undeliverable), FIELD(counters, dropped), FIELD(counters, passed),
    FIELD(counters, ranked), FIELD(counters, strangers), FIELD(counters, undeliverable_bytes),
    FIELD(counters, spare),
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

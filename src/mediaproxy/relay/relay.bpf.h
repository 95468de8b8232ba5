/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The maps that the program and the relay share. The object's BTF tells the relay of both.
 */
#pragma once
#include "kernel.bpf.h"
#include "layout.bpf.h"

/* So that the object's BTF has the enums, too. */
struct names {
    enum state state;
    enum flag flag;
    enum reason reason;
};

struct names _names SEC("names");

struct {
    NUMBER(type, MAP_ARRAY);
    NUMBER(map_flags, MAP_MMAPABLE);
    NUMBER(max_entries, 1); /* the loader sets it: addresses times ports */
    TYPE(key, u32);
    TYPE(value, struct slot);
} slots SEC(".maps");

struct {
    NUMBER(type, MAP_ARRAY);
    NUMBER(map_flags, MAP_MMAPABLE);
    NUMBER(max_entries, 1); /* as slots */
    TYPE(key, u32);
    TYPE(value, struct counters);
} counters SEC(".maps");

struct {
    NUMBER(type, MAP_ARRAY);
    NUMBER(map_flags, MAP_MMAPABLE);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct control);
} control SEC(".maps");

struct {
    NUMBER(type, MAP_PERCPU_ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct totals);
} totals SEC(".maps");

/* The relay's receiving sockets: 0 for IPv4, 1 for IPv6. */
struct {
    NUMBER(type, MAP_SOCKMAP);
    NUMBER(max_entries, 2);
    TYPE(key, u32);
    TYPE(value, u64);
} sockets SEC(".maps");

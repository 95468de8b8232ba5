"""The few requests of rtnetlink that attaching needs: a clsact qdisc, a BPF filter in it, what an interface is.

Numbers come in, the kernel does it or an OSError says why not. Layouts: include/uapi/linux/rtnetlink.h and pkt_cls.h.
"""

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass

_MESSAGE = struct.Struct("=IHHII")
_TC = struct.Struct("=BxxxiIII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_GETLINK, _NEWQDISC, _DELQDISC, _NEWFILTER, _DELFILTER, _GETFILTER = 18, 36, 37, 44, 45, 46
_ERROR, _DONE = 2, 3
_CLSACT = 0xFFFFFFF1
"TC_H_CLSACT, also TC_H_INGRESS."
_INGRESS = 0xFFFFFFF2
"TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)"
_HANDLE = 0xFFFF0000
_KIND, _OPTIONS = 1, 2
_PARENT_DEV_NAME = 56
_BPF_FD, _BPF_NAME, _BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_ALL_PROTOCOLS = 0x0300
"ETH_P_ALL in network order."


@dataclass(frozen=True, slots=True)
class Filter:
    """A BPF filter at the ingress of an interface, by what names it there."""

    ifindex: int
    priority: int
    "1 to 65535, lower ones first."
    handle: int = 1


def link_type(index: int) -> int:
    """The ARPHRD_ number of an interface; OSError if there is none."""
    reply = _request(_GETLINK, _REQUEST, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    return int(_LINK.unpack_from(reply)[1])


def is_hardware(index: int) -> bool:
    """Whether an interface is a device's, as Linux 5.14 and later tell; OSError if there is none. sysfs knows it, but
    may show another network namespace."""
    reply, at = _request(_GETLINK, _REQUEST, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)), _LINK.size
    while at + _ATTRIBUTE.size <= len(reply):
        length, kind = _ATTRIBUTE.unpack_from(reply, at)
        if kind == _PARENT_DEV_NAME:
            return True
        at += max(_ATTRIBUTE.size, length + 3 & ~3)
    return False


def is_card(name: str) -> bool:
    """The same by name; no if there is none."""
    try:
        return is_hardware(socket.if_nametoindex(name))
    except OSError:
        return False


def add_clsact(index: int) -> None:
    """Give an interface the clsact qdisc, if it has none."""
    body = _TC.pack(socket.AF_UNSPEC, index, _HANDLE, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
    with contextlib.suppress(FileExistsError):
        _request(_NEWQDISC, _REQUEST | _ACK | _CREATE | _EXCL, body)


def remove_clsact(index: int) -> None:
    """Take the clsact qdisc away, with every filter in it."""
    body = _TC.pack(socket.AF_UNSPEC, index, _HANDLE, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
    _request(_DELQDISC, _REQUEST | _ACK, body)


def set_filter(where: Filter, program: int, name: str) -> None:
    """Add a filter, or put another program in the place of the one it has."""
    options = (
        _attribute(_BPF_FD, struct.pack("=I", program))
        + _attribute(_BPF_NAME, name.encode() + b"\0")
        + _attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
    )
    body = _filter(where) + _attribute(_KIND, b"bpf\0") + _attribute(_OPTIONS, options)
    _request(_NEWFILTER, _REQUEST | _ACK | _CREATE | _REPLACE, body)


def remove_filter(where: Filter) -> None:
    """Remove a filter; no error if it or its interface is gone. The qdisc stays while others have filters in it."""
    try:
        _request(_DELFILTER, _REQUEST | _ACK, _filter(where) + _attribute(_KIND, b"bpf\0"))
        if not has_filters(where.ifindex):
            remove_clsact(where.ifindex)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            raise


def has_filter(where: Filter) -> bool:
    """Whether a filter is there; somebody may have removed it, or the qdisc."""
    try:
        _request(_GETFILTER, _REQUEST, _filter(where) + _attribute(_KIND, b"bpf\0"))
    except OSError:
        return False
    return True


def has_filters(index: int) -> bool:
    """Whether clsact has filters, at ingress or egress."""
    for parent in (_INGRESS, _INGRESS + 1):
        body = _TC.pack(socket.AF_UNSPEC, index, 0, parent, 0)
        if _dump(_GETFILTER, body):
            return True
    return False


def _filter(where: Filter) -> bytes:
    info = where.priority << 16 | _ALL_PROTOCOLS
    return _TC.pack(socket.AF_UNSPEC, where.ifindex, where.handle, _INGRESS, info)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _request(kind: int, flags: int, body: bytes) -> bytes:
    """The body of the answer; empty for an acknowledgement."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
        sock.sendto(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 1, 0) + body, (0, 0))
        reply = sock.recv(1 << 16)
    size, answer, *_ = _MESSAGE.unpack_from(reply)
    if answer == _ERROR:
        (code,) = struct.unpack_from("=i", reply, _MESSAGE.size)
        if code:
            raise OSError(-code, f"rtnetlink: {os.strerror(-code)}")
        return b""
    return reply[_MESSAGE.size : size]


def _dump(kind: int, body: bytes) -> list[bytes]:
    """The bodies of all answers."""
    found: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
        sock.sendto(_MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST | 0x300, 1, 0) + body, (0, 0))
        while True:
            reply = sock.recv(1 << 16)
            at = 0
            while at < len(reply):
                size, answer, *_ = _MESSAGE.unpack_from(reply, at)
                if answer in (_ERROR, _DONE):
                    return found
                found.append(reply[at + _MESSAGE.size : at + size])
                at += size + -size % 4

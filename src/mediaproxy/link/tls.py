"""[shell] TLS of control links: both ends show a certificate of one authority, which vouches for nothing else.

Paths of PEM files come in, contexts go out, made anew when the files have changed, so that a renewed certificate needs
no restart. A file that has become unreadable changes nothing, and is told once.
"""

import logging
import os
import ssl
from collections.abc import Callable
from typing import TypeAlias

from mediaproxy.link.address import TlsFiles

log = logging.getLogger("mediaproxy.link")

Context: TypeAlias = Callable[[], ssl.SSLContext]
"Gives the context for the next connection."
_State: TypeAlias = tuple[tuple[int, int, int], ...]


def server_side(files: TlsFiles) -> Context:
    """For who listens. OSError names what is wrong, and with which file."""
    return _Watched(files, ssl.PROTOCOL_TLS_SERVER).context


def client_side(files: TlsFiles) -> Context:
    """For who connects; the other end must prove the name that it was asked by. OSError as above."""
    return _Watched(files, ssl.PROTOCOL_TLS_CLIENT).context


def door_side(files: TlsFiles) -> Context:
    """For a door (docs/doors.md): TLS 1.2 will do, and clients need a certificate only if ``authorities`` is set.
    OSError as above."""
    return _Watched(files, ssl.PROTOCOL_TLS_SERVER, door=True).context


class _Watched:
    """The context of files that may change."""

    def __init__(self, files: TlsFiles, protocol: int, *, door: bool = False) -> None:
        self._files = files
        self._protocol = protocol
        self._door = door
        self._state = self._look()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        state = self._look()
        if state != self._state:
            self._state = state
            try:
                self._context = self._make()
                log.info("%s: read again", self._files.certificate)
            except OSError as error:
                log.error("%s; the certificate read before stays in use", error.strerror or error)
        return self._context

    def _paths(self) -> list[str]:
        files = self._files
        paths = [files.certificate, files.key or files.certificate, files.authorities]
        return paths if files.authorities or not self._door else paths[:2]

    def _look(self) -> _State:
        found = []
        for path in self._paths():
            try:
                info = os.stat(path)
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((info.st_ino, info.st_size, info.st_mtime_ns))
        return tuple(found)

    def _make(self) -> ssl.SSLContext:
        for path in self._paths():
            try:
                with open(path, "rb"):
                    pass  # the library would not say which one it cannot read
            except OSError as error:
                raise OSError(error.errno, f"{path}: {error.strerror}") from error
        context = ssl.SSLContext(self._protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2 if self._door else ssl.TLSVersion.TLSv1_3
        anybody = self._door and not self._files.authorities
        context.verify_mode = ssl.CERT_NONE if anybody else ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self._files.certificate, self._files.key or None)
        except ssl.SSLError as error:
            raise OSError(error.errno, f"{self._files.certificate}: no certificate with its key, as PEM") from error
        if anybody:
            return context
        try:
            context.load_verify_locations(cafile=self._files.authorities)
        except ssl.SSLError as error:
            raise OSError(error.errno, f"{self._files.authorities}: no certificates, as PEM") from error
        return context

"""The module inside Kamailio (5.6, app_python3): the original's functions for KEMI scripts and ``python_exec``.

A script's class is a ``Module``; see examples/kamailio and docs/kamailio.md. A Kamailio process must not wait: nothing
here has an event loop or a thread, and only what is named in tests/test_kamailio_imports.py is imported.
"""

from mediaproxy.kamailio.script import Module, route

__all__ = ["Module", "route"]

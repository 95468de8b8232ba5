"""The command line: ``mediaproxy run`` and what asks a running server. ``main`` is the console script."""

from mediaproxy.cli.app import main

__all__ = ["main"]

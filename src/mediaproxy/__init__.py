"""Far-end NAT traversal for SIP."""

__version__ = "0.1.0"

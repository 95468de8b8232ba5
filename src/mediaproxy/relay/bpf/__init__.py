"""The kernel program and its loader, over bpf(2) and rtnetlink by the standard library alone.

``KernelPath.create(Control(ports=PortMap.of(settings)))`` makes maps and loads the program; ``attach`` puts it at the
ingress of an interface (``where.section`` names the one it needs), ``attach_lookup`` gives what is passed up to one
socket. Nothing here knows calls or flows. FastPathUnavailable says what this host lacks.
"""

from mediaproxy.relay.bpf.attach import Attachment, Interface, adopt, attach, attach_lookup, attach_xdp, interface
from mediaproxy.relay.bpf.objects import FastPathUnavailable
from mediaproxy.relay.bpf.path import KernelPath

__all__ = [
    "Attachment",
    "FastPathUnavailable",
    "Interface",
    "KernelPath",
    "adopt",
    "attach",
    "attach_lookup",
    "attach_xdp",
    "interface",
]

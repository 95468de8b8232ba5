"""The functions for a native kamailio.cfg, such as native.cfg: python_exec("fix_contact").

Each returns to the config what the original's function did: 1 (true), -1 or -2 (false).
"""

import mediaproxy.kamailio

SETTINGS = {
    # Where `mediaproxy run` listens. All settings with their defaults: docs/kamailio.md.
    "mediaproxy_socket": "/var/run/proxydispatcher.sock",
}


def mod_init():
    return mediaproxy.kamailio.Module(**SETTINGS)

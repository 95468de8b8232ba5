"""The configuration: a TOML file that becomes settings structs, or an error that says what to do.

``load`` reads a file, ``default_text`` writes the commented default. What the settings mean stands with the parts that
use them (``edge.settings``, ``relay.settings``) and in ``schema``.
"""

from mediaproxy.config.clients import clients_of
from mediaproxy.config.reader import ConfigError, load, loads
from mediaproxy.config.schema import Config, LogFormat
from mediaproxy.config.template import default_text

__all__ = ["Config", "ConfigError", "LogFormat", "clients_of", "default_text", "load", "loads"]

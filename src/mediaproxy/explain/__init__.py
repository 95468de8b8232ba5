"""What the system thinks of one captured message, for people: ``mediaproxy explain`` and whoever asks why.

A message, how it arrived, the policy and perhaps a relay's answer come in; sections of text, and the values behind
them, go out. It runs the very code that serves calls (``module.Run``) and describes its results; it decides nothing.
"""

from mediaproxy.explain.explanation import Chapter, Explanation, explain
from mediaproxy.explain.relay import RelayAnswer, RelayError
from mediaproxy.explain.streams import SdpStream
from mediaproxy.explain.text import shown

__all__ = ["Chapter", "Explanation", "RelayAnswer", "RelayError", "SdpStream", "explain", "shown"]

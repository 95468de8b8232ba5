"""rtpengine's NG protocol: a dictionary per request, in bencode or JSON."""

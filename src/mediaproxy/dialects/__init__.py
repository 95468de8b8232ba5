"""Doors for the control protocols that SIP servers already speak: MediaProxy 1.x and 2.x, rtpproxy, rtpengine NG."""

"""SIP as bytes and values, without IO: RFC 3261 and what phones make of it.

``message`` is the door (parse, Request, Response, response_to); ``check`` says what a server refuses; ``header``,
``uri`` and ``via`` are the values in a message; ``framing`` cuts streams. Below them are ``lines`` (lossless edits),
``grammar``, ``names`` and ``reason``, beside them ``transaction`` (the four state machines) and ``digest``.
"""

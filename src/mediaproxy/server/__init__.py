"""The whole server in one process: SIP edge, dispatcher, relay, registrations, records and control socket.

``assembly.Server`` puts it together, ``process.serve`` is ``mediaproxy run``, ``answers`` is what it tells the CLI.
Nothing is imported here: the commands that ask a server need not load one.
"""

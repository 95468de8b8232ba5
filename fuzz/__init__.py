"""Coverage-guided fuzzing of everything that reads what peers write: ``make fuzz``, or ``python -m fuzz TARGET``.

``parsers`` and ``dialects`` are the targets: each takes bytes, and raises only if something is wrong with us. ``house``
is a relay in virtual time, ``wire`` a connection without sockets. ``corpus`` has what fuzzing begins with.
"""

"""The routing script of the built-in edge (docs/script.md): a Python file that says what happens to each message.

``functions`` are the names that it may call, with where and with what; ``syntax`` finds wrong calls before anything
runs; ``loading`` makes a script of a file; ``interpreter`` runs its routes, each on a ``stack`` of its own so that it
can wait; ``stage`` is what the functions do while a route runs; ``msg`` is what a route sees of its message.
``default`` is the script that runs if there is no other one, and the example.
"""

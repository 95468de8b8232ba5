"""One table of packets, run over every plane: what comes, which flows there are, what becomes of it (table.py)."""

"""Draws the state machines from their tables: ``python -m docs.diagrams`` writes docs/diagrams.md.

``--check`` compares instead. The picture in the repository can so never say anything else than the code.
"""

import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from mediaproxy.relay import latchstate
from mediaproxy.sip.transactionstate import TABLES

FILE = Path(__file__).with_name("diagrams.md")
HEAD = """# State machines

Drawn by `python -m docs.diagrams` from the tables in the code; a test compares. What a table does not name is absorbed.
"""


def machines() -> Iterator[tuple[str, str, Mapping[Any, Mapping[Any, Any]]]]:
    """Title, where the table stands, and the table."""
    for title, table in TABLES.items():
        yield title, "src/mediaproxy/sip/transactionstate.py", table
    yield "Latch of one relay port", "src/mediaproxy/relay/latchstate.py", latchstate.TRANSITIONS


def draw(table: Mapping[Any, Mapping[Any, Any]]) -> str:
    """One table as a mermaid state diagram. The first state is where it starts; one without a way out ends it."""
    lines = ["stateDiagram-v2", f"    [*] --> {_name(next(iter(table)))}"]
    for state, ways in table.items():
        # Inputs that lead to the same place share an arrow.
        together: dict[Enum, list[str]] = {}
        for what, after in ways.items():
            together.setdefault(after, []).append(str(what.value))
        lines += [f"    {_name(state)} --> {_name(after)}: {', '.join(inputs)}" for after, inputs in together.items()]
        if not ways:
            lines.append(f"    {_name(state)} --> [*]")
    return "\n".join(lines)


def _name(state: Enum) -> str:
    return str(state.value).capitalize()


def page() -> str:
    """The whole of docs/diagrams.md."""
    parts = [HEAD]
    for title, where, table in machines():
        parts.append(f"## {title}\n\n`{where}`\n\n```mermaid\n{draw(table)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """0: written, or the same; 1: the committed picture differs."""
    text = page()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text)
        return 0
    if FILE.exists() and FILE.read_text() == text:
        return 0
    print(f"{FILE} is not what the tables say; run: python -m docs.diagrams", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

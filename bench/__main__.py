"""`make bench`: all benchmarks beside their rivals, one line each; ``python -m bench NAME...`` runs some of them."""

import argparse
import importlib
import sys
import time

from bench.report import HEAD
from lab.netns import LabError, end_on_signals

NAMES = ("messages", "calls", "plane")
"The benchmarks: modules of this package with a ``run``."


def main() -> int:
    """Run them; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *NAMES], help="what to measure; nothing: all of it")
    names = parser.parse_args().name or NAMES
    end_on_signals()
    begin = time.monotonic()
    print(HEAD, flush=True)
    try:
        for name in names:
            for result in importlib.import_module(f"bench.{name}").run():
                print(result, flush=True)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"{time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

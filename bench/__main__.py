"""`make bench`: all benchmarks beside their rivals, one line each; ``python -m bench NAME...`` runs some of them."""

import argparse
import importlib
import sys
import time

from bench.report import HEAD
from lab.netns import LabError, end_on_signals
from lab.site import missing

NAMES = ("messages", "functions", "calls", "kemi", "plane", "doors", "sweep", "standing", "forwarding")
"The benchmarks: modules of this package with a ``run``."


def measure(name: str) -> bool:
    """Print the lines of one benchmark; False if it failed."""
    try:
        for result in importlib.import_module(f"bench.{name}").run():
            print(result, flush=True)
    except LabError as error:
        print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def main() -> int:
    """Run them; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"{', '.join(NAMES)}; nothing: all of them")
    names = parser.parse_args().name or NAMES
    if not set(names) <= set(NAMES):
        parser.error(f"there are {', '.join(NAMES)}")
    absent = missing("kamailio", "rtpengine", "sipp", "setpriv", "taskset")
    if absent:
        print(f"bench: missing: {', '.join(absent)}; `make bench` installs what is needed", file=sys.stderr)
        return 1
    end_on_signals()
    begin = time.monotonic()
    print(HEAD, flush=True)
    failed = [name for name in names if not measure(name)]
    print(f"{time.monotonic() - begin:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

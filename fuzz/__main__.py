"""Runs one target under libFuzzer, with what the committed corpus and earlier runs have found.

python -m fuzz TARGET [--seconds N] [libFuzzer's own options, such as -jobs=2, or files to try once]
"""

import argparse
import os
import sys
from pathlib import Path

import atheris

READING = ("dialects", "endpoint", "nat", "sdp", "sip", "traversal")
"What reads peers' bytes: only there more coverage is worth a seed."

with atheris.instrument_imports(include=[f"mediaproxy.{room}" for room in READING]):
    from fuzz.targets import TARGETS

HERE = Path(__file__).parent
FOUND = HERE.parent / ".fuzz"
"What earlier runs have found, and inputs that failed."
SECONDS = 300


def main() -> None:
    """See above. The process ends with libFuzzer's status: 0 unless an input failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", SECONDS)))
    options, more = parser.parse_known_args()
    found, seeds = FOUND / options.target, HERE / "corpus" / options.target
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"]
    places = [f"-artifact_prefix={FOUND}/{options.target}-", "-print_final_stats=1"]
    tried = [] if any(not word.startswith("-") for word in more) else [str(found), str(seeds)]
    atheris.Setup([sys.argv[0], *limits, *places, *more, *tried], TARGETS[options.target])
    atheris.Fuzz()


main()

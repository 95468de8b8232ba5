"""Runs one target under libFuzzer, with what the committed corpus and earlier runs have found.

python -m fuzz TARGET [--seconds N] [libFuzzer's own options, such as -jobs=2, or files to try once]

What runs have found is kept in .fuzz/TARGET; this adds to the committed corpus what reaches more code than it does:

python -m fuzz TARGET -set_cover_merge=1 fuzz/corpus/TARGET .fuzz/TARGET
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

HERE = Path(__file__).parent
READING = ("dialects", "endpoint", "nat", "sdp", "sip", "traversal")
"What reads peers' bytes: only there more coverage is worth a seed."


def _others() -> Iterator[str]:
    """All other modules. atheris chooses by top-level package, and leaves out by name."""
    source = HERE.parent / "src"
    for path in (source / "mediaproxy").rglob("*.py"):
        words = path.relative_to(source).with_suffix("").parts
        if words[1] not in READING:
            yield ".".join(words[:-1] if words[-1] == "__init__" else words)


with atheris.instrument_imports(include=["mediaproxy"], exclude=list(_others())):
    from fuzz.targets import TARGETS

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
    atheris.Setup([_launcher(options.target), *limits, *places, *more, *tried], TARGETS[options.target])
    atheris.Fuzz()


def _launcher(target: str) -> str:
    """A program that is this target: libFuzzer starts itself again to merge and for -jobs."""
    path = FOUND / f"{target}.sh"
    path.write_text(f'#!/bin/sh\ncd "{HERE.parent}" && exec "{sys.executable}" -m fuzz {target} "$@"\n')
    path.chmod(0o755)
    return str(path)


main()

# mediaproxy: `make demo` shows the main job on real input, `make test` runs every check. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Debian packages: what each target needs beyond Python and make.
DEMO_PACKAGES := baresip-core iproute2 nftables procps tcpdump
TEST_PACKAGES := $(DEMO_PACKAGES) sip-tester openssl coturn kamailio-xml-modules
KAMAILIO_PACKAGES := kamailio kamailio-python3-modules kamailio-extra-modules python3-venv
BENCH_PACKAGES := kamailio rtpengine-daemon sip-tester

# Tests with real processes share a machine with whatever runs beside them: three of a run may have a second try, and what
# failed in the first is shown.
SECOND_TRY := --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks

# The Python inside Kamailio is Debian's, whatever $(PYTHON) is, so it has an environment of its own.
KAMAILIO_VENV := .venv-kamailio

# Coverage-guided fuzzing (fuzz/), with an environment of its own; seconds per target.
FUZZ_VENV := .venv-fuzz
FUZZ_SECONDS ?= 300
FUZZ_TARGETS := sip sdp v1 v2 rtpproxy ng

# What an editable install compiles (hatch_build.py).
NATIVE := hatch_build.py $(wildcard src/mediaproxy/relay/*.[ch])

.PHONY: help install dev demo test lint types layers docs unit e2e kernel soak bench format clean kamailio kamailio-venv fuzz
.DEFAULT_GOAL := help

help:
	@echo 'make demo     install, then let two phones behind NAT hear each other (about a minute; root for real NATs)'
	@echo 'make test     install, then run all checks: lint, layers, types, tests, real phones behind real NATs'
	@echo 'make install  install into $(VENV); the program is $(BIN)/mediaproxy'
	@echo 'make kamailio install, then start Kamailio with our module and the relay server beside it (docs/kamailio.md)'
	@echo 'make soak     an hour of long runs: kills under attack, calls on hold for minutes'
	@echo 'make bench    measure ourselves beside Kamailio, rtpengine and sipmessage (docs/benchmarks.md)'
	@echo 'make fuzz     $(FUZZ_SECONDS) s of coverage-guided fuzzing for each of: $(FUZZ_TARGETS)'
	@echo 'make lint types layers docs unit e2e kernel   one part of make test each;  make format  write the format'

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	tools/debian-packages --python $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[fast]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[fast,dev]'
	touch $@

kamailio-venv: $(KAMAILIO_VENV)/.installed

$(KAMAILIO_VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	tools/debian-packages $(KAMAILIO_PACKAGES)
	test -x $(KAMAILIO_VENV)/bin/python3 || /usr/bin/python3 -m venv $(KAMAILIO_VENV)
	$(KAMAILIO_VENV)/bin/pip install --quiet --editable '.[fast]'
	touch $@

kamailio: kamailio-venv
	examples/kamailio/run

demo: install
	tools/debian-packages --optional $(DEMO_PACKAGES)
	$(BIN)/pip install --quiet pjsua2-python
	$(BIN)/python -m lab.demo

test: dev lint layers types docs unit e2e
	@tools/count-ignores

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

layers: dev
	$(BIN)/lint-imports

types: dev
	$(BIN)/mypy

docs: dev
	$(BIN)/python -m docs.diagrams --check

unit: dev
	$(BIN)/pytest -q -m 'not e2e' --durations=15 $(SECOND_TRY)

e2e: dev kamailio-venv
	tools/debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest -q -m 'e2e and not soak' --durations=15 $(SECOND_TRY)

# A shortcut: the part of e2e that is about the kernel plane and restarts.
kernel: dev
	tools/debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest -q -m 'e2e and not soak' -k 'kernel or bpf or restore_processes or restart or planes'

# Long runs in real time, an hour in all; SOAK_SECONDS=60 makes them shorter.
soak: dev kamailio-venv
	tools/debian-packages $(TEST_PACKAGES)
	$(BIN)/pytest -q -m soak

bench: dev kamailio-venv
	tools/debian-packages $(BENCH_PACKAGES)
	$(BIN)/pip install --quiet --editable '.[fast,dev,bench]'
	$(BIN)/python -m bench

# Each for FUZZ_SECONDS, as many at a time as there are processors. What fails is in .fuzz/TARGET-*; try it again with
# `$(FUZZ_VENV)/bin/python -m fuzz TARGET FILE`.
fuzz: $(FUZZ_VENV)/.installed
	@mkdir -p .fuzz
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P "$$(nproc)" -I TARGET sh -c \
	  '$(FUZZ_VENV)/bin/python -m fuzz TARGET --seconds $(FUZZ_SECONDS) >.fuzz/TARGET.log 2>&1 && \
	   { echo TARGET; tail -n 4 .fuzz/TARGET.log; } || { tail -n 40 .fuzz/TARGET.log; exit 255; }'

$(FUZZ_VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	tools/debian-packages --python $(PYTHON)
	test -x $(FUZZ_VENV)/bin/python || $(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/pip install --quiet --editable '.[fuzz]'
	touch $@

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(KAMAILIO_VENV) $(FUZZ_VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f src/mediaproxy/relay/*.bpf.o src/mediaproxy/relay/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

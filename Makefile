# One command for each thing a person wants. All that they make is in build/ and .venv/ (both
# ignored by git), so the second run is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOT := $(shell test "$$(id -u)" = 0 || echo sudo)
FUZZ_SECONDS ?= 120
PYTEST = $(ROOT) env CI=$(CI) BOOTC_ALL_CUTS=$(BOOTC_ALL_CUTS) \
	BOOTC_QEMU_ACCEL=$(BOOTC_QEMU_ACCEL) BOOTC_BOOT_UNTIL=$(BOOTC_BOOT_UNTIL) $(BIN)/pytest
# How many tests go side by side. What may not is kept apart by tests/boot/sharing.py.
JOBS ?= $(shell nproc)
BOOT_MATRIX := build/boot-matrix.md

# What the machines of tests are made of.
define machines
	tools/sid-chroot
	tools/qemu-chroot
	tools/grub-tree
	tools/grub-tree sid
	tools/ukiboot-tree
	$(ROOT) examples/debian/build
endef

.PHONY: demo test boot-all boot-readme check fuzz dev boot bench install clean host-packages

demo: host-packages ## Build a Debian image, install it on a blank disk, boot, update, roll back
	tools/qemu-chroot
	examples/debian/demo

boot:              ## Boot the demo's installed disk on this terminal
	tools/run-vm

# When machines that only repeat what others show no longer begin: the whole stays below an hour.
test: BOOTC_BOOT_UNTIL := $(shell expr $$(date +%s) + 2700)
# Made again if there was no compiler when it was made. In the tree is another Python, no compiled
# hash and no UTF-8. Root runs what only root can arrange, and state machines for many more steps.
test: host-packages ## Every test: units to real boots of virtual machines
	! $(BIN)/bootc internals features 2>/dev/null | grep -q '^extension: not built' || rm $(VENV)/stamp
	$(MAKE) -j 2 check fuzz
	$(machines)
	tools/debian-tree build/trixie trixie python3-venv,make,passwd usr/sbin/useradd usr/bin/make
	tools/check-as-user build/trixie
	tools/debian-tree build/podman trixie podman,skopeo usr/bin/podman usr/bin/skopeo
	BOOTC_SPEED=pure $(BIN)/pytest -q tests/vectors
	$(PYTEST) -q -n $(JOBS) -m root tests/unit tests/property
	$(PYTEST) -n $(JOBS) --hypothesis-profile=thorough --without-boot-all --durations=30 \
		tests/vectors tests/crash tests/interop tests/host tests/boot tests/property/test_*_sequences.py \
		tests/property/test_two_programs.py

# One cell or some of them: make boot-all CELLS='grub and bios'. Nothing may skip.
boot-all: CI = true
boot-all: BOOTC_ALL_CUTS = 1
boot-all: host-packages dev ## Every boot path: install, boot, upgrade, roll back; a table of results
	$(machines)
	$(PYTEST) -n $(JOBS) $(if $(CELLS),-k '$(CELLS)') --boot-matrix $(BOOT_MATRIX) tests/boot

boot-readme: dev   ## Put the table of the last make boot-all into README
	PYTHONPATH=tests $(BIN)/python -m support.readme $(BOOT_MATRIX)

check: dev         ## Format, lint, strict types, import contract, unit tests; for any user
	$(BIN)/ruff format --check src tests tools bench
	$(BIN)/ruff check src tests tools bench
	$(BIN)/mypy
	$(BIN)/pytest -q -n $(JOBS) tests/unit tests/property

fuzz: dev          ## Two minutes of bytes no parser expects; FUZZ_SECONDS=600 for more
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --seconds $(FUZZ_SECONDS)

dev: $(VENV)/stamp ## A virtual environment with the project, editable, and the checkers

$(VENV)/stamp: pyproject.toml setup.py src/bootc/formats/_verity.c src/bootc/repository/_store.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

host-packages:     ## Install with apt-get what demo and test need
	tools/host-packages

bench: dev         ## Figures of speed and size
	for b in bench/*.py; do $(BIN)/python $$b; done

install:           ## Install into an OS image: make install DESTDIR=/path/to/root
	tools/install-os "$(DESTDIR)"

clean:             ## Remove what the targets above made
	rm -rf build $(VENV) 2>/dev/null || $(ROOT) rm -rf build $(VENV)

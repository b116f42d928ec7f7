# Two commands for users: `make demo` and `make test`. Everything they need is installed here, not by hand.
# Installation needs root (directly or by sudo); building and running do not.

PACKAGES_BUILD := build-essential pkg-config libpcsclite-dev
# Chromium prints the report's page: 124 MB, 16 s.
PACKAGES_TEST  := chromium mosquitto mosquitto-clients pcscd vsmartcard-vpcd systemd openssl iproute2 procps socat strace faketime libfaketime e2fsprogs curl jq python3 \
	mono-mcs mono-runtime libmono-system-net-http4.0-cil libmono-system-runtime-serialization4.0-cil libmono-system-xml-linq4.0-cil
# A virtual machine: tests/lab.
PACKAGES_LAB   := qemu-system-x86 busybox-static cpio kmod xz-utils e2fsprogs
# One machine for all of them.
MODULES_LAB := virtio_pci 9p 9pnet_virtio overlay virtio_console virtio_blk virtio_net ext4 \
	can can_raw can_isotp can_dev vcan slcan sch_netem evdev uinput

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
CARGO ?= cargo

.PHONY: help demo test lint soak bench bench-build hot-functions fuzz power-cut can wedge check install deps-build deps-test

help:
	@echo "make demo     install what is needed, build, run the whole product on simulated devices"
	@echo "make test     install what is needed, run every test"
	@echo "make soak     half an hour at a hundred times the rate of a store, flat or not (SOAK_MINUTES=1: shorter)"
	@echo "make bench    install what is needed, measure, print the table of docs/benchmarks.md"
	@echo "make fuzz     feed every parser with made-up bytes for FUZZ_SECONDS each (usually 60; SEED=)"
	@echo "make power-cut  cut a virtual machine's power 20 times under load (CUTS=, SEED=)"
	@echo "make can      CAN sockets against the kernel's own ISO-TP, in a virtual machine"
	@echo "make wedge    a scanner that types, made by the kernel, in a virtual machine"
	@echo "make lint     clippy and rustfmt, warnings are errors"
	@echo "make install  install the built daemon with its systemd unit on this box"

# One line a missing package; apt only runs when something is missing.
define install_missing
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi
endef

deps-build:
	$(call install_missing,$(PACKAGES_BUILD))

deps-test: deps-build
	$(call install_missing,$(PACKAGES_TEST))

demo: deps-build
	$(CARGO) build --release --locked
	./target/release/baygate demo $(DEMO_ARGS)

# `cargo test --test NAME` runs one file alone; all of them one after the other take half as long again.
test: deps-test
	CARGO=$(CARGO) tests/side_by_side.py --locked

# Half an hour at a hundred times the rate of a store (tests/soak.rs). SOAK_MINUTES=1 RATE=100 for a short one.
soak: deps-test
	$(CARGO) build --release --locked
	BAYGATE_BIN=$(CURDIR)/target/release/baygate SOAK_MINUTES=$(or $(SOAK_MINUTES),30) RATE=$(or $(RATE),100) \
		$(CARGO) test --locked --test soak -- --include-ignored --nocapture --test-threads=1

# What the figures mean: docs/benchmarks.md. `make bench SAVE=1` writes them there.
BENCHES := append drain start idle tap counter vehicle decode buses
# Some peers are written in Python or for Node.js: installed under target/, not on the machine.
PACKAGES_BENCH := python3-venv $(if $(shell command -v npm),,nodejs npm)
PEERS := $(or $(CARGO_TARGET_DIR),target)/peers

$(PEERS)/installed: benches/peers/requirements.txt benches/peers/package.json
	$(call install_missing,$(PACKAGES_BENCH))
	python3 -m venv --clear $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	cp benches/peers/package.json $(PEERS)
	npm install --prefix $(PEERS) --silent --no-package-lock --no-audit --no-fund
	touch $@

bench-build: deps-test $(PEERS)/installed
	$(CARGO) bench --locked --no-run

bench: bench-build
	@for bench in $(BENCHES); do BAYGATE_PEERS=$(abspath $(PEERS))/bin/python BAYGATE_NODE_PEERS=$(abspath $(PEERS))/node_modules $(CARGO) bench --locked --quiet --bench $$bench || exit 1; done
	@$(CARGO) bench --locked --quiet --bench table

# What a release keeps side by side (src/build.rs); worth doing again when much has changed.
# The list is emptied first: callgrind does not see into a program that is linked by one.
hot-functions: deps-test
	$(call install_missing,valgrind)
	: > src/hot_functions.txt
	$(CARGO) build --release --locked
	python3 benches/hot_functions.py $(or $(CARGO_TARGET_DIR),target)/release/baygate

# Each parser of what strangers send (fuzz/fuzz_targets; docs/testing.md). Coverage needs flags
# that the stable compiler only takes when told so.
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

fuzz: deps-build
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --dev --sanitizer none $$target fuzz/corpus/$$target $(wildcard fuzz/seeds/$$target) -- \
			-max_total_time=$(or $(FUZZ_SECONDS),60) -print_final_stats=1 $(addprefix -seed=,$(SEED)) || exit 1; \
	done

# Nothing told is lost; and a daemon that does not sync is caught.
power-cut: deps-test
	$(call install_missing,$(PACKAGES_LAB))
	tests/lab/build.sh $(or $(CARGO_TARGET_DIR),target)/lab $(MODULES_LAB)
	tests/power_cut/mutant.sh
	BAYGATE_ROUNDS=$(CUTS) BAYGATE_SEED=$(SEED) $(CARGO) test --locked --test power_cut -- \
		--ignored --nocapture --test-threads=1 --skip plays_the_shop

# Few build machines have CAN in their kernel: tests/vehicle_can.rs runs in a virtual machine.
# STRIDE=31: of the longer messages one in 31, where time is short.
can: deps-test
	$(call install_missing,$(PACKAGES_LAB))
	tests/lab/build.sh $(or $(CARGO_TARGET_DIR),target)/lab $(MODULES_LAB)
	BAYGATE_STRIDE=$(STRIDE) $(CARGO) test --locked --test vehicle_can -- --ignored --nocapture --exact in_the_machine

# A keyboard that is a scanner, made by the kernel: tests/card_wedge.rs.
wedge: deps-test
	$(call install_missing,$(PACKAGES_LAB))
	tests/lab/build.sh $(or $(CARGO_TARGET_DIR),target)/lab $(MODULES_LAB)
	$(CARGO) test --locked --test card_wedge -- --ignored --nocapture --exact in_the_machine

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) fmt --check
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml

install: deps-build
	$(CARGO) build --release --locked
	$(SUDO) ./systemd/install.sh

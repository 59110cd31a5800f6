# make build   the static binary, at target/midge
# make dist    archives and Debian packages in dist/, for every architecture; ARCHS=x86_64: for one
# make demo    a cluster of three nodes on this machine, with services on it
# make test    every check and every test
# make chaos   what can go wrong with several managers, at random, for long
# make vm      midge on an emulated machine, with a kernel and a power switch of its own; VM=aarch64,
#              VM=armv7: on boards of these
# make bench   what midge costs, as one table; BENCH=managers, BENCH=growth: two more
# make fuzz    looks for bytes that break a parser, a minute each
#
# Each installs what it needs and lacks. demo and test need root: they make network namespaces.

SHELL := /bin/bash
ARCH := $(shell uname -m)
TARGET := $(if $(filter armv7l,$(ARCH)),armv7-unknown-linux-gnueabihf,$(ARCH)-unknown-linux-gnu)
CARGO := PATH="$(HOME)/.cargo/bin:$(PATH)" cargo

.PHONY: build others dist demo demo-down test chaos vm bench fuzz tools test-tools lint clean

build: tools
	cross/build.sh
	install -m 755 target/$(TARGET)/release/midge target/midge

ARCHS := x86_64 aarch64 armv7
# What the tests of a cluster of several architectures run besides, where a compiler is to be had.
others: tools
	for arch in $(filter-out $(ARCH:armv7l=armv7),$(ARCHS)); do \
	  cross/build.sh $$arch || [ $$? = 3 ] || exit 1; done

dist: tools
	cross/package.sh $(ARCHS)

demo: build
	tests/demo/demo.sh up

demo-down:
	tests/demo/demo.sh down

test: build others test-tools lint
	MIDGE_TEST_BINARY=$(CURDIR)/target/midge $(CARGO) test --locked
	@echo "every check and test passed"

# MIDGE_CHAOS_SEED=N draws the same faults again; the test prints the number.
chaos: build test-tools
	MIDGE_CHAOS_ROUNDS=$${MIDGE_CHAOS_ROUNDS:-20} MIDGE_TEST_BINARY=$(CURDIR)/target/midge \
	  $(CARGO) test --locked --test it -- chaos:: --nocapture

# The processor is emulated: some minutes, and some more to fetch the machine of another architecture.
VM := $(ARCH:armv7l=armv7)
vm: tools test-tools
	cross/build.sh $(VM)
	tests/tools.sh vm $(VM)
	MIDGE_VM=$(VM) $(CARGO) test --locked --test it -- vm:: --nocapture

# The benchmark drives the static binary; how it is compiled itself counts only where it is thousands
# of nodes.
BENCH := cost
BENCH_PROFILE := $(if $(filter growth,$(BENCH)),bench,dev)
bench: build test-tools
	MIDGE_TEST_BINARY=$(CURDIR)/target/midge $(CARGO) bench --locked --profile $(BENCH_PROFILE) --bench cost -- $(BENCH)

fuzz: tools
	tests/tools.sh fuzz
	PATH="$(HOME)/.cargo/bin:$(PATH)" tests/fuzz.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet
	$(CARGO) deny --locked check bans licenses sources
	tests/advisories.sh

tools:
	tests/tools.sh build

test-tools:
	tests/tools.sh test

clean:
	$(CARGO) clean

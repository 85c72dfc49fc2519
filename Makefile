# TimeCoin: what a person types, and what CI runs. "make help" lists the targets.
#
# PREFIX     where install puts programs and man pages (default /usr/local)
# DESTDIR    staging directory before PREFIX, for packages
# NATIVE=1   build for this machine's CPU (faster signatures; the result may not run elsewhere)
# ARGS       arguments for "make run", as ARGS="--nodes 7"
# TESTFLAGS  arguments for "cargo test", as TESTFLAGS=--release

PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
LOCALSTATEDIR ?= /var
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/timecoin
SYSTEMDDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CARGO      ?= cargo
INSTALL    ?= install
TESTFLAGS  ?=
ARGS       ?=

ifdef NATIVE
export RUSTFLAGS = -C target-cpu=native
# A directory of its own: the two builds would undo one another.
export CARGO_TARGET_DIR = target/native
endif
TARGET = $(or $(CARGO_TARGET_DIR),target)
MANPAGES = $(wildcard man/*.[1-8])
SUBSTITUTE = sed -e 's|/usr/local/bin/|$(BINDIR)/|g' -e 's|/etc/timecoin|$(SYSCONFDIR)/timecoin|g' -e 's|/var/lib/timecoin|$(LOCALSTATEDIR)/lib/timecoin|g'

.PHONY: help build run test bench lint ci install uninstall sim sim-swarm sim-scale enumerate regenerate

help:
	@echo "make build      release programs in $(TARGET)/release"
	@echo "make run        build, then a network of four nodes on this machine; Ctrl-C stops it"
	@echo "make test       all tests"
	@echo "make bench      all benchmarks"
	@echo "make lint       format, clippy, man pages"
	@echo "make ci         what CI runs"
	@echo "make sim        one simulated network: SEED=1 NODES=4 HOURS=1"
	@echo "make sim-swarm  many simulated networks: N=100 FIRST=1 SECONDS=300"
	@echo "make sim-scale  finality and traffic with 4 to 100 masternodes and 1,000 nodes, for an hour each: SECONDS=3600"
	@echo "make enumerate  a large part of the space of three rounds, 4 masternodes, one a liar"
	@echo "make regenerate the generated parts of man pages and the example configuration"
	@echo "make install    programs, man pages, systemd units: PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)"
	@echo "make uninstall  removes what install put there; configuration and data stay"

build:
	$(CARGO) build --release --locked

run: build
	$(TARGET)/release/timed devnet $(ARGS)

test:
	$(CARGO) test --locked --no-fail-fast $(TESTFLAGS)

bench:
	$(CARGO) bench --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	mandoc -T lint -W warning $(MANPAGES)

ci:
	bash .ci/run

sim:
	TIMECOIN_SIM_SEED=$(or $(SEED),1) TIMECOIN_SIM_NODES=$(NODES) TIMECOIN_SIM_HOURS=$(or $(HOURS),1) \
		$(CARGO) test --release --locked --test simulation one_seed -- --ignored --nocapture

sim-swarm:
	TIMECOIN_SIM_SEEDS=$(or $(N),100) TIMECOIN_SIM_FIRST=$(or $(FIRST),1) TIMECOIN_SIM_SECONDS=$(or $(SECONDS),300) \
		$(CARGO) test --release --locked --test simulation a_bounded_swarm -- --nocapture

sim-scale:
	TIMECOIN_SIM_NODES=$(NODES) TIMECOIN_SIM_SECONDS=$(or $(SECONDS),3600) \
		$(CARGO) test --release --locked --test simulation scale::table -- --ignored --nocapture

enumerate:
	$(CARGO) test --release --locked --lib three_rounds -- --ignored --nocapture

regenerate:
	TIMECOIN_REGENERATE=1 $(CARGO) test --locked --lib manual

install: build
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(DOCDIR) $(DESTDIR)$(SYSTEMDDIR) $(DESTDIR)$(SYSUSERSDIR) \
		$(DESTDIR)$(TMPFILESDIR) $(DESTDIR)$(SYSCONFDIR)/timecoin
	$(INSTALL) -m 0755 $(TARGET)/release/timed $(TARGET)/release/time-cli $(DESTDIR)$(BINDIR)/
	for page in $(MANPAGES); do \
		section=$(DESTDIR)$(MANDIR)/man$${page##*.}; \
		$(INSTALL) -d $$section && $(INSTALL) -m 0644 $$page $$section/ || exit 1; \
	done
	for file in LICENSE README.md CHANGELOG.md ARCHITECTURE.md; do \
		test ! -f $$file || $(INSTALL) -m 0644 $$file $(DESTDIR)$(DOCDIR)/ || exit 1; \
	done
	for unit in timed.service timed@.service; do \
		$(SUBSTITUTE) systemd/$$unit > $(DESTDIR)$(SYSTEMDDIR)/$$unit && chmod 0644 $(DESTDIR)$(SYSTEMDDIR)/$$unit || exit 1; \
	done
	$(SUBSTITUTE) systemd/timecoin.sysusers > $(DESTDIR)$(SYSUSERSDIR)/timecoin.conf
	$(SUBSTITUTE) systemd/timecoin.tmpfiles > $(DESTDIR)$(TMPFILESDIR)/timecoin.conf
	chmod 0644 $(DESTDIR)$(SYSUSERSDIR)/timecoin.conf $(DESTDIR)$(TMPFILESDIR)/timecoin.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/timecoin/timed.toml || \
		{ $(SUBSTITUTE) systemd/timed.toml > $(DESTDIR)$(SYSCONFDIR)/timecoin/timed.toml && \
		  chmod 0644 $(DESTDIR)$(SYSCONFDIR)/timecoin/timed.toml; }
	@echo "Installed. To run the service: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now timed"

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/timed $(DESTDIR)$(BINDIR)/time-cli
	for page in $(notdir $(MANPAGES)); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done
	rm -f $(DESTDIR)$(SYSTEMDDIR)/timed.service $(DESTDIR)$(SYSTEMDDIR)/timed@.service
	rm -f $(DESTDIR)$(SYSUSERSDIR)/timecoin.conf $(DESTDIR)$(TMPFILESDIR)/timecoin.conf
	rm -rf $(DESTDIR)$(DOCDIR)
	@echo "Removed. $(SYSCONFDIR)/timecoin and $(LOCALSTATEDIR)/lib/timecoin stay: they hold configuration, keys and wallets."

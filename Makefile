# From a fresh clone: `make demo` shows the system at work, `make test` runs all tests; `.ci/run` is what CI runs, which is
# that and more of some of them.
# Root makes the network namespaces; without it, `make demo` asks sudo for that part.

BUILT := $(or $(CARGO_TARGET_DIR),target)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-vm bench bench-bgp chaos-ipam fuzz doc

# `make demo KEEP=1` leaves the hosts up.
demo:
	$(SUDO) scripts/packages demo
	cargo build --package calico-node --bins
	$(SUDO) $(BUILT)/debug/calico-lab demo $(if $(KEEP),--keep)

test:
	scripts/packages test
	scripts/check

# IP-in-IP on Debian's kernel, emulated.
test-vm:
	scripts/test-vm

bench:
	$(SUDO) scripts/packages bench
	cargo bench --workspace --all-features
	cargo build --package calico-node --bins
	$(SUDO) $(BUILT)/debug/calico-lab throughput

# Addresses under SIGKILL, lost leaders and lost answers: a million operations, or `make chaos-ipam DURATION=120` for two
# minutes. `SEED=...` runs a schedule again. In memory, because SIGKILL leaves what a program has written: a disk would make
# it several times slower and test nothing more. `TMPDIR=/tmp` is for those who want that.
chaos-ipam:
	cargo build --release --package calico-ipam --example chaos
	TMPDIR=$(or $(TMPDIR),/dev/shm) $(BUILT)/release/examples/chaos

# Our BGP daemon beside BIRD, FRR and GoBGP; `make bench-bgp BGP="--load one --daemon ours --daemon bird"` for a part.
bench-bgp:
	scripts/packages bgp
	cargo build --release --package calico-examples --example bgpd
	cargo bench --package calico-bgp --all-features --bench daemons -- \
		--ours $(abspath $(BUILT))/release/examples/bgpd $(BGP)

# `make fuzz TARGET=selector SECONDS=60`; without a target, each of fuzz/fuzz_targets in turn.
fuzz:
	scripts/fuzz $(or $(SECONDS),600) $(TARGET)

doc:
	cargo doc --workspace --all-features --no-deps

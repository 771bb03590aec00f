# SPDX-License-Identifier: MulanPSL-2.0
# The commands of this project; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME := libisula_storage.so.0
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
DESTDIR ?=
# remote-layer-store: for an iSulad built with ENABLE_REMOTE_LAYER_STORE.
FEATURES ?=
# An image archive or OCI layout for `make demo`.
IMAGE ?= tests/golden/images/bb.tar.gz
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
STATIC := $(RELEASE)/static/libisula_storage.a
NM ?= nm
OBJCOPY ?= objcopy
# Debian packages, and the command or file by which each is known to be there.
DEMO_PACKAGES := gcc:gcc python3:python3
CHECK_PACKAGES := gcc:gcc g++:g++ clang:clang++ binutils:nm pkg-config:pkg-config \
	make:make valgrind:valgrind libarchive-tools:bsdtar tar-split:tar-split umoci:umoci buildah:buildah skopeo:skopeo attr:getfattr acl:setfacl xz-utils:xz zstd:zstd bzip2:bzip2 e2fsprogs:mkfs.ext4 xfsprogs:mkfs.xfs quota:repquota mount:mount \
	qemu-system-x86:qemu-system-x86_64 busybox-static:busybox udev:udevadm thin-provisioning-tools:thin_check \
	python3:python3 strace:strace git:git containerd:containerd docker.io:dockerd golang-go:go \
	golang-github-coreos-bbolt-dev:/usr/share/gocode/src/go.etcd.io/bbolt/db.go
BENCH_PACKAGES := gcc:gcc python3:python3 e2fsprogs:mkfs.ext4 mount:mount util-linux:unshare tar:tar gzip:gzip xz-utils:xz libarchive-tools:bsdtar

.PHONY: help all static demo check hostile-valgrind tsan bench bench-engine bench-scale bench-containerd bench-devicemapper install place uninstall header fmt clean cargo demo-packages check-packages bench-packages

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

all: cargo ## build the library and the tool (release)
	cargo build --release --locked $(addprefix --features ,$(FEATURES))

static: all ## the static library as it is installed: only names of the interface are global in it
	$(MAKE) --no-print-directory '$(STATIC)'

# One object, so that nothing of what it holds (Rust's standard library, zstd, xz, bzip2) can meet the program's own: all
# but the exported names become local. A program may define the two weak ones itself, as beside the shared library.
# zstd's hooks for tracing are the program's own zstd's. The bitcode within Rust's standard library is for its compiler.
$(STATIC): $(RELEASE)/libisula_storage.a $(RELEASE)/libisula_storage.so
	dir=$$(mktemp -d)
	trap 'rm -rf "$$dir"' EXIT
	$(NM) -D --defined-only '$(RELEASE)/libisula_storage.so' | cut -d' ' -f3 > "$$dir/exports"
	$(LD) -r --gc-sections --force-group-allocation --strip-debug $$(sed 's/^/-u /' "$$dir/exports") \
		-o "$$dir/all.o" '$(RELEASE)/libisula_storage.a'
	$(OBJCOPY) --keep-global-symbols="$$dir/exports" --strip-unneeded \
		--weaken-symbol=storage_layers_get_by_compress_digest --weaken-symbol=free_layer_list \
		--redefine-sym ZSTD_trace_compress_begin=isula_storage_no_hook_1 \
		--redefine-sym ZSTD_trace_compress_end=isula_storage_no_hook_2 \
		--redefine-sym ZSTD_trace_decompress_begin=isula_storage_no_hook_3 \
		--redefine-sym ZSTD_trace_decompress_end=isula_storage_no_hook_4 \
		--remove-section=.llvmbc --remove-section=.llvmcmd --remove-section=.debug_gdb_scripts \
		"$$dir/all.o" "$$dir/isula_storage.o"
	mkdir -p '$(@D)'
	rm -f '$@'
	$(AR) rcs '$@' "$$dir/isula_storage.o"

demo: demo-packages all ## import an image, mount it, run a program in it: with the tool, in C, in Python (as root)
	examples/demo '$(RELEASE)' '$(IMAGE)'

check: check-packages cargo ## all tests; as root none may be skipped
	if [ "$$(id -u)" = 0 ]; then export CI=true; fi
	log=$$(mktemp)
	trap 'rm -f "$$log"' EXIT
	# What tests that pass have printed is looked through for those that were skipped, and not shown.
	quiet() { tee -a "$$log" | awk '/^successes:$$/ { hide = 1 } /^failures:$$|^test result: / { hide = 0 } !hide'; }
	cargo test --locked --no-fail-fast -- --show-output 2>&1 | quiet
	# The build of iSulad with ENABLE_REMOTE_LAYER_STORE has other struct layouts.
	cargo test --locked --features remote-layer-store --lib --test 'abi_*' --test 'remote_*' --test c_harness --test linking --no-fail-fast -- --show-output 2>&1 | quiet
	if grep -E '^test .* \.\.\. ignored|^skipped: ' "$$log"; then echo "tests were skipped" >&2; exit 1; fi

hostile-valgrind: check-packages cargo ## the hostile suite under valgrind, with smaller numbers (takes minutes)
	if [ "$$(id -u)" = 0 ]; then export CI=true; fi
	test=$$(cargo test --locked --test hostile --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$$/\1/p')
	logs=$$(mktemp -d)
	trap 'rm -rf "$$logs"' EXIT
	# What valgrind does not know of the kernel it answers with ENOSYS, and warns. Tests that start programs are left out:
	# strace and valgrind do not go together, and two processes would be two valgrinds. It runs one thread at a time, so
	# each core gets a valgrind with a few tests.
	"$$test" --list --format terse | sed -n 's/: test$$//p' | grep -vE 'quota|two_processes|fights_for|the_tool' > "$$logs/tests"
	HOSTILE_SMALL=1 xargs -a "$$logs/tests" -n 4 -P "$$(nproc)" valgrind --suppressions=c_tests/valgrind.supp --quiet \
		--fair-sched=yes --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
		--error-exitcode=99 --log-file="$$logs/%p.log" "$$test" --test-threads=1 --exact || { grep -h '^==' "$$logs"/*.log; exit 1; }

tsan: check-packages cargo ## many users of a daemon under ThreadSanitizer (builds the library anew)
	if [ "$$(id -u)" = 0 ]; then export CI=true; fi
	cargo test --locked --test daemon_races

bench: bench-packages bench-engine bench-scale bench-containerd ## the tables of docs/benchmarks.md (as root; minutes); QUICK=1 IMAGE= ROUNDS= PEER_ROUNDS=

bench-engine: bench-packages cargo ## imports of an image beside tar, gunzip and other storages; settings: benches/engine.rs
	$(if $(QUICK),export PERCENT=$${PERCENT:-10} ROUNDS=$${ROUNDS:-1} PEER_ROUNDS=$${PEER_ROUNDS:-0})
	cargo bench --locked --bench engine

bench-scale: cargo ## what many images and layers cost; settings: benches/scale.rs
	$(if $(QUICK),export SIZES=$${SIZES:-1000/5000} ROUNDS=$${ROUNDS:-1} FILES=$${FILES:-1000})
	cargo bench --locked --bench scale
	cargo bench --locked --bench docker_images

bench-devicemapper: cargo ## what layers of a thin pool cost while there are ever more, up to a thousand; in a virtual machine; VM_LAYERS=
	cargo bench --locked --bench devicemapper

bench-containerd: cargo ## files of ten thousand images of containerd; settings: benches/containerd_images.rs
	cargo bench --locked --bench containerd_images

header: cargo ## write include/ anew
	UPDATE_HEADERS=1 cargo test --locked --test abi_header

fmt: cargo ## format the sources
	cargo fmt --all

clean: ## remove what was built
	cargo clean

install: all ## install to PREFIX (BINDIR, LIBDIR, INCLUDEDIR, DATADIR; DESTDIR)
	$(MAKE) --no-print-directory place

# Installs what was built, wherever RELEASE is.
place: $(STATIC)
	lib='$(DESTDIR)$(LIBDIR)' share='$(DESTDIR)$(DATADIR)' tool='$(RELEASE)/isula-storage'
	install -d "$$lib/pkgconfig" '$(DESTDIR)$(INCLUDEDIR)' '$(DESTDIR)$(BINDIR)' "$$share/man/man1"
	install -m 755 '$(RELEASE)/libisula_storage.so' "$$lib/libisula_storage.so.$(VERSION)"
	ln -sf 'libisula_storage.so.$(VERSION)' "$$lib/$(SONAME)"
	ln -sf '$(SONAME)' "$$lib/libisula_storage.so"
	install -m 644 '$(STATIC)' "$$lib/"
	install -m 644 include/isula_storage.h include/isula_storage_types.h '$(DESTDIR)$(INCLUDEDIR)/'
	install -m 755 "$$tool" '$(DESTDIR)$(BINDIR)/isula-storage'
	"$$tool" man "$$share/man/man1"
	install -d "$$share/bash-completion/completions" "$$share/zsh/site-functions" "$$share/fish/vendor_completions.d"
	"$$tool" completion bash > "$$share/bash-completion/completions/isula-storage"
	"$$tool" completion zsh > "$$share/zsh/site-functions/_isula-storage"
	"$$tool" completion fish > "$$share/fish/vendor_completions.d/isula-storage.fish"
	# A program that took the header for that of the other build would hand over a struct that is too short.
	define=
	if $(NM) -D --defined-only '$(RELEASE)/libisula_storage.so' | grep ' remote_start_refresh_thread$$' > /dev/null; then
		define=' -DENABLE_REMOTE_LAYER_STORE'
	fi
	printf '%s\n' > "$$lib/pkgconfig/isula-storage.pc" \
		'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' \
		'Name: isula-storage' 'Description: Crash-safe storage for container engines' 'Version: $(VERSION)' \
		'Libs: -L$${libdir} -lisula_storage' 'Libs.private: -lutil -lrt -lpthread -lm -ldl' \
		"Cflags: -I\$${includedir}$$define"

uninstall: ## remove what install installed
	lib='$(DESTDIR)$(LIBDIR)' share='$(DESTDIR)$(DATADIR)'
	rm -f "$$lib"/libisula_storage.{a,so,so.0,so.$(VERSION)} "$$lib/pkgconfig/isula-storage.pc"
	rm -f '$(DESTDIR)$(INCLUDEDIR)'/isula_storage{,_types}.h '$(DESTDIR)$(BINDIR)/isula-storage'
	rm -f "$$share"/man/man1/isula-storage{,-*}.1 "$$share/bash-completion/completions/isula-storage"
	rm -f "$$share/zsh/site-functions/_isula-storage" "$$share/fish/vendor_completions.d/isula-storage.fish"

cargo:
	@if ! command -v cargo > /dev/null; then
		echo "cargo was not found: install Rust 1.88 or later, for example with rustup (Debian 12's cargo is too old)" >&2
		exit 1
	fi
	version=$$(cargo --version | cut -d' ' -f2)
	if ! printf '1.88\n%s\n' "$$version" | sort -CV; then
		echo "cargo $$version is too old: install Rust 1.88 or later, for example with rustup" >&2
		exit 1
	fi

# A missing command's package is installed where that is possible (root, apt), and named where it is not.
demo-packages check-packages bench-packages: %-packages:
	@missing=()
	for pair in $($(shell echo $* | tr a-z A-Z)_PACKAGES); do
		command -v "$${pair#*:}" > /dev/null || [[ "$$pair" == *:/* && -e "$${pair#*:}" ]] || missing+=("$${pair%%:*}")
	done
	[ $${#missing[@]} -gt 0 ] || exit 0
	echo "missing Debian packages: $${missing[*]}"
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
		echo "install them, then try again" >&2
		exit 1
	fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"

# Makefile - builds tpded, tpdectl and libtpd.a; `make help` lists the targets.
#
# One file, no recursion: sources are found by wildcard (common/*/*.c, daemon/*.c, tools/*.c, tests/t_*.c), so a new
# file needs no line here. What the objects were built with is kept in $(BUILD)/flags: `make` after `make CC=clang`
# compiles everything anew instead of mixing. Sanitizer builds have directories of their own.
# Rejected: cmake, meson and autotools (one platform, six libraries, all of them known to pkg-config).

# ---- what can be set on the command line ----
CC     = gcc
SAN    =
BUILD  = build$(if $(SAN),-san-$(subst $(comma),-,$(SAN)))
CFLAGS = $(if $(SAN),-O1,-O2) -g
KERNEL_CFLAGS = $(if $(SAN),-O1,-O3)
PREFIX = /usr/local
DESTDIR =
JOBS  := $(shell nproc)
WERROR =
V      =

comma := ,
quote := '
space := $(subst ,, )
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all tests demo check check-threads check-pairs-all check-runs check-memory check-frameworks check-arches check-layers check-headers fuzz \
	bench bench-large bench-training install uninstall clean help FORCE
.DEFAULT_GOAL := all

# Asked before anything is added to MAKEFLAGS: `make -n` must install nothing.
DRY := $(findstring n,$(firstword -$(MAKEFLAGS)))
# As many jobs as there are CPUs; -j on the command line wins over this, and so does a make above us.
ifeq ($(findstring jobserver,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(JOBS)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory

# ---- set-up: before anything asks pkg-config ----
# `make check` and the like bring what they need themselves; a plain `make` says what is missing.
GOALS := $(or $(MAKECMDGOALS),all)
SETUP := $(sort $(if $(filter check check-threads check-headers check-pairs-all,$(GOALS)),build check) \
	$(if $(filter demo,$(GOALS)),build demo) $(if $(filter bench,$(GOALS)),build bench) \
	$(if $(filter check-frameworks,$(GOALS)),build python) $(if $(filter fuzz,$(GOALS)),build fuzz) \
	$(if $(filter check-arches,$(GOALS)),build clang arches) $(if $(filter bench-%,$(GOALS)),build python) \
	$(if $(filter check-headers,$(GOALS)),clang))
NEEDS_LIBS := $(filter-out clean help uninstall check-layers,$(GOALS))

ifneq ($(SETUP),)
ifeq ($(DRY),)
$(shell tools/setup.sh $(SETUP) $(if $(findstring clang,$(CC)),clang) >&2)
ifneq ($(.SHELLSTATUS),0)
$(error set-up failed)
endif
endif
endif

CORE_LIBS := libzstd inih sqlite3 libxxhash libcrypto
ifneq ($(NEEDS_LIBS),)
ifneq ($(shell pkg-config --exists $(CORE_LIBS) libuv && echo found),found)
$(error libraries are missing: run tools/setup.sh, which installs them)
endif
CORE_LDLIBS   := $(shell pkg-config --libs $(CORE_LIBS)) -lm
DAEMON_LDLIBS := $(shell pkg-config --libs libuv)
CHECK_LDLIBS  := $(shell pkg-config --libs check 2>/dev/null)
LIB_CFLAGS    := $(shell pkg-config --cflags $(CORE_LIBS) libuv)
endif

# ---- flags ----
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes $(if $(WERROR),-Werror)
# The decoder's arithmetic is part of the format: strict IEEE 754, nothing contracted, nothing of this machine only.
ARITHMETIC := -ffp-contract=off -fno-fast-math -fno-math-errno -fno-trapping-math
ifeq ($(SAN),)
HARDENING := -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
else
SANITIZE := -fsanitize=$(SAN)$(if $(findstring undefined,$(SAN)),$(comma)float-cast-overflow) \
	-fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc sees through less of the instrumented code and then guesses.
WARNINGS += $(if $(findstring clang,$(CC)),,-Wno-maybe-uninitialized)
endif
# HARDENING stands after CFLAGS: it needs an optimising build, which CFLAGS decides.
COMPILE = $(CC) -std=c11 $(WARNINGS) $(ARITHMETIC) $(CFLAGS) $(HARDENING) $(SANITIZE) -fPIE -pthread \
	$(LIB_CFLAGS) $(CPPFLAGS)
LINK    = $(CC) $(CFLAGS) $(SANITIZE) -pie -pthread -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)

# ---- sources ----
SRC_COMMON := $(wildcard common/*/*.c)
SRC_DAEMON := $(wildcard daemon/*.c)
SRC_TOOLS  := $(wildcard tools/*.c)
SRC_BENCH  := $(wildcard tools/bench/*.c)
# Parts of codec_speed; every other file there is a program.
SPEED_PARTS := $(filter tools/bench/speed_%,$(SRC_BENCH))
SRC_TESTS  := $(wildcard tests/*.c)
MAIN_TESTS := $(filter tests/t_%,$(SRC_TESTS))
# Programs of their own; every other file in tests/ is shared by the tests.
LONE_TESTS := $(filter tests/exhaustive_% tests/lone_%,$(SRC_TESTS))
# Fuzz targets: each a program of its own for libFuzzer, all in one to replay the corpus.
SRC_FUZZ   := $(wildcard tests/fuzz/*.c)
FUZZ_NAMES := $(patsubst tests/fuzz/%.c,%,$(filter-out tests/fuzz/fuzz_corpus.c,$(SRC_FUZZ)))
FUZZ_CORPUS := $(BUILD)/tests/fuzz_corpus
# A test that includes a header of the daemon or of the tools is linked with their parts, too.
WITH_DAEMON := $(if $(MAIN_TESTS),$(shell grep -lE '^\#include "(daemon/|scan_help|daemon_help)' $(MAIN_TESTS)))
WITH_TOOLS  := $(if $(MAIN_TESTS),$(shell grep -l '^\#include "tools/' $(MAIN_TESTS)))
# Tests whose code starts threads, for SAN=thread.
THREADED := $(if $(MAIN_TESTS),$(shell grep -lE \
	'^\#include ("(base/pool|store/(ingest|restore|chain)|archive/[a-z_]+|daemon/[a-z_]+)\.h"|"(archive|daemon)_help\.h"|<pthread\.h>)' \
	$(MAIN_TESTS)))

obj  = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
prog = $(patsubst tests/%.c,$(BUILD)/tests/%,$(1))

LIB          := $(BUILD)/libtpd.a
DAEMON_PARTS := $(BUILD)/obj/daemon.a
TOOLS_PARTS  := $(BUILD)/obj/tools.a
TEST_PARTS   := $(BUILD)/obj/tests.a
PROGRAMS := $(if $(wildcard daemon/main.c),$(BUILD)/tpded) $(if $(wildcard tools/tpdectl.c),$(BUILD)/tpdectl)
# What takes long begins first: nothing is left to run beside what begins last.
LONG     := $(filter $(addprefix tests/t_,$(addsuffix .c,predict codec second_decoder predict_types restore rows)),$(MAIN_TESTS))
TESTS    := $(call prog,$(LONG) $(filter-out $(LONG),$(MAIN_TESTS)))
BENCHES  := $(patsubst tools/bench/%.c,$(BUILD)/bench/%,$(filter-out $(SPEED_PARTS),$(SRC_BENCH)))
SCRIPTS  := $(sort $(wildcard tests/sh/*.sh))
UNITS    := $(BUILD)/systemd/tpded.service $(BUILD)/systemd/tpded-verify.service

all: $(LIB) $(PROGRAMS) $(UNITS)
tests: $(TESTS) $(FUZZ_CORPUS) $(call prog,$(LONE_TESTS)) $(BENCHES)

# ---- compiling and linking ----
$(V).SILENT:

# Rewritten only when it changes: whatever depends on it is made again then, and only then.
define keep
mkdir -p $(@D)
printf '%s\n' '$(subst $(quote),$(quote)\$(quote)$(quote),$(1))' | cmp -s - $@ || \
	printf '%s\n' '$(subst $(quote),$(quote)\$(quote)$(quote),$(1))' > $@
endef
$(BUILD)/flags: FORCE
	$(call keep,$(COMPILE) / $(LINK))
$(BUILD)/sources: FORCE
	$(call keep,$(SRC_COMMON) $(SRC_DAEMON) $(SRC_TOOLS) $(SRC_TESTS))
$(BUILD)/prefix: FORCE
	$(call keep,$(PREFIX))

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	mkdir -p $(@D)
	echo '  CC      $<'
	$(COMPILE) $(ISA) -MMD -MP -Icommon $(if $(filter common/%,$<),,-I.) \
		$(if $(filter common/catalog/%,$<),-I$(BUILD)/gen) -c -o $@ $<

# Loops that are simple enough for any form, but for which -O2 makes no vectors.
$(BUILD)/obj/common/codec/step.o: ISA = $(KERNEL_CFLAGS)

# Kernels for one kind of CPU, which only that CPU is ever given; elsewhere these files are empty. To find uses after
# return, gcc 12 lays locals that it takes for aligned to 64 bytes where 32 are all there is: it does not look for these in the file that has them.
NO_FAKE_STACK = $(if $(findstring clang,$(CC)),,--param asan-use-after-return=0)
ifneq ($(findstring x86_64,$(shell $(CC) -dumpmachine)),)
$(BUILD)/obj/common/codec/kernels_avx2.o $(BUILD)/obj/common/codec/kernels_plain.o: ISA = $(KERNEL_CFLAGS) -mavx2 -mbmi2 -mpopcnt
# Of the plain loops in it, which remain for some types, gcc 12 makes something slower at -O3.
$(BUILD)/obj/common/codec/survey_avx2.o $(BUILD)/obj/common/codec/context_avx2.o: ISA = -mavx2 -mbmi2 -mpopcnt
# Without -fno-tree-slp-vectorize it makes vectors of counts that are in registers of their own, one by one.
$(BUILD)/obj/common/codec/kernels_avx512.o $(BUILD)/obj/common/codec/survey_avx512.o: ISA = $(KERNEL_CFLAGS) -mavx2 -mavx512f -mavx512bw \
	-mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2 -mavx512cd -mbmi2 -mpopcnt -fno-tree-slp-vectorize $(if $(findstring address,$(SAN)),$(NO_FAKE_STACK))
endif

# The schema is a file of its own, for people, and a string in the library.
$(call obj,$(filter common/catalog/%,$(SRC_COMMON))): | $(BUILD)/gen/schema_sql.h
$(BUILD)/gen/schema_sql.h: common/catalog/schema.sql tools/embed.awk
	mkdir -p $(@D)
	echo '  GEN     $@'
	awk -v name=tpd_schema_sql -f tools/embed.awk $< > $@

$(LIB): $(call obj,$(SRC_COMMON))
$(DAEMON_PARTS): $(call obj,$(filter-out daemon/main.c,$(SRC_DAEMON)))
$(TOOLS_PARTS): $(call obj,$(filter-out tools/tpdectl.c,$(SRC_TOOLS)))
$(TEST_PARTS): $(call obj,$(filter-out $(MAIN_TESTS) $(LONE_TESTS),$(SRC_TESTS)))
%.a: $(BUILD)/sources
	mkdir -p $(@D)
	echo '  AR      $@'
	rm -f $@
	ar rcsD $@ $(filter %.o,$^)

$(BUILD)/tpded: $(call obj,daemon/main.c) $(DAEMON_PARTS) $(LIB)
	echo '  LINK    $@'
	$(LINK) -o $@ $^ $(CORE_LDLIBS) $(DAEMON_LDLIBS)
$(BUILD)/tpdectl: $(call obj,tools/tpdectl.c) $(TOOLS_PARTS) $(LIB)
	echo '  LINK    $@'
	$(LINK) -o $@ $^ $(CORE_LDLIBS)

$(call prog,$(WITH_DAEMON)): $(DAEMON_PARTS)
$(call prog,$(WITH_TOOLS)): $(TOOLS_PARTS)
# In this order, whatever the order of the lines above: a static library serves those before it.
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_PARTS) $(LIB)
	mkdir -p $(@D)
	echo '  LINK    $@'
	$(LINK) -o $@ $< $(TEST_PARTS) $(filter $(DAEMON_PARTS) $(TOOLS_PARTS),$^) $(LIB) \
		$(CORE_LDLIBS) $(DAEMON_LDLIBS) $(CHECK_LDLIBS)

# What the codec does to a bit, for any compiler, level and CPU: no more of ours in it than that takes.
$(BUILD)/tests/lone_codec_bits: $(call obj,tests/lone_codec_bits.c $(filter common/base/% common/codec/%,$(SRC_COMMON)))
	mkdir -p $(@D)
	echo '  LINK    $@'
	$(LINK) -o $@ $^ $(CORE_LDLIBS)

$(FUZZ_CORPUS): $(call obj,$(SRC_FUZZ)) $(LIB)
	mkdir -p $(@D)
	echo '  LINK    $@'
	$(LINK) -o $@ $^ $(CORE_LDLIBS)

$(BUILD)/bench/codec_speed: $(call obj,$(SPEED_PARTS))
$(BENCHES): $(BUILD)/bench/%: $(BUILD)/obj/tools/bench/%.o $(LIB)
	mkdir -p $(@D)
	echo '  LINK    $@'
	$(LINK) -o $@ $(filter %.o,$^) $(LIB) $(CORE_LDLIBS)

# Objects are kept, also those that only an implicit rule knows.
.SECONDARY:

-include $(wildcard $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d $(BUILD)/fuzz/obj/*/*/*.d)

# ---- tests ----
RUN_TESTS = BUILD=$(abspath $(BUILD)) CC='$(CC)' SAN='$(SAN)' tests/run.sh $(BUILD)/logs $(JOBS)

check: all tests
	$(RUN_TESTS) $(SCRIPTS) $(TESTS) $(FUZZ_CORPUS)

check-threads: all $(call prog,$(THREADED))
	$(RUN_TESTS) $(wildcard tests/sh/daemon.sh) $(filter $(call prog,$(THREADED)),$(TESTS))

# Every pair of 16-bit values at every step that matters: 2^32 pairs a case. Minutes to hours: not part of check.
check-pairs-all: $(BUILD)/tests/exhaustive_pairs
	$<

# Other training runs than the recorded one: RUNS=DIR, a run or a tree of runs (make bench leaves some in build/bench/runs).
check-runs: all
	test -n '$(RUNS)' || { echo 'usage: make check-runs RUNS=DIR'; exit 2; }
	find $(abspath $(RUNS)) -name '.?*' -prune -o -type d -name 'checkpoint-*' -prune -printf '%h\n' | sort -u | \
		BUILD=$(abspath $(BUILD)) xargs -t -n 1 bash tests/sh/demo_run.sh

# Peak memory of daemon, restore and verify on a file of 2 GB: RUN=DIR, a run in fp32.
check-memory: all
	test -n '$(RUN)' || { echo 'usage: make check-memory RUN=DIR'; exit 2; }
	BUILD=$(abspath $(BUILD)) tests/large/memory.sh '$(RUN)'

# PyTorch, transformers, Lightning, DeepSpeed and others train small models while tpded watches. They come into $(BUILD)/frameworks/venv and
# venv-jax, or are taken from FRAMEWORKS_VENV=DIR and FRAMEWORKS_VENV_JAX=DIR.
check-frameworks: all
	BUILD=$(abspath $(BUILD)) tests/frameworks/run.sh

# The same bytes from gcc and clang, at every level, from every form of the kernels, on aarch64 too (under qemu-user).
check-arches:
	BUILD=$(abspath $(BUILD)) JOBS=$(JOBS) CPPFLAGS='$(CPPFLAGS)' tests/arches/run.sh

# ---- fuzzing: libFuzzer, for FUZZ_SECONDS each, JOBS at a time; coverage of the parsers at the end ----
FUZZ_SECONDS = 60
FUZZ_DIR     = $(BUILD)/fuzz
FUZZ_COMPILE = clang -std=c11 $(WARNINGS) -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fprofile-instr-generate -fcoverage-mapping -pthread $(LIB_CFLAGS) $(CPPFLAGS)
FUZZ_OBJECTS = $(patsubst %.c,$(FUZZ_DIR)/obj/%.o,$(filter common/base/% common/format/% common/archive/trainer_state.c, \
	$(SRC_COMMON)))

$(FUZZ_DIR)/obj/%.o: %.c
	mkdir -p $(@D)
	echo '  FUZZ CC $<'
	$(FUZZ_COMPILE) -DFUZZ_ALONE -MMD -MP -Icommon $(if $(filter common/%,$<),,-I.) -c -o $@ $<
$(FUZZ_DIR)/fuzz_%: $(FUZZ_DIR)/obj/tests/fuzz/fuzz_%.o $(FUZZ_OBJECTS)
	echo '  LINK    $@'
	clang -fsanitize=fuzzer,address,undefined -fprofile-instr-generate -pthread -o $@ $^ $(CORE_LDLIBS)

fuzz: $(addprefix $(FUZZ_DIR)/,$(FUZZ_NAMES))
	tests/fuzz/run.sh $(FUZZ_DIR) $(FUZZ_SECONDS) $(JOBS) $(FUZZ_NAMES)

check-layers:
	tools/check_layers.sh

check-headers:
	tools/check_headers.sh gcc clang

demo: all
	BUILD=$(abspath $(BUILD)) tools/demo.sh

bench: all $(BENCHES)
	BUILD=$(abspath $(BUILD)) tools/bench/run.sh

# Memory for checkpoints of 10 GB with AdamW's state (LARGE_SIZE), and the time of a restore at depth 16: RUN=DIR, a run with optimizer.pt.
bench-large: all
	BUILD=$(abspath $(BUILD)) tools/bench/large.sh $(RUN)

# Steps a second of a real training loop with tpded and without, PAIRS times INTERVAL seconds each.
bench-training: all
	BUILD=$(abspath $(BUILD)) tools/bench/training.sh $(if $(PAIRS),--pairs $(PAIRS)) $(if $(INTERVAL),--interval $(INTERVAL))

# ---- installation ----
BINDIR  = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
MANDIR  = $(PREFIX)/share/man
# Where systemd looks: /usr/lib and /usr/local/lib, and nothing under any other prefix.
SYSTEMD_LIB = $(if $(filter /usr,$(PREFIX)),/usr,/usr/local)/lib
INSTALLED = $(BINDIR)/tpdectl $(SBINDIR)/tpded $(SYSTEMD_LIB)/systemd/system/tpded.service \
	$(SYSTEMD_LIB)/systemd/system/tpded-verify.service $(SYSTEMD_LIB)/systemd/system/tpded-verify.timer \
	$(SYSTEMD_LIB)/systemd/system/tpded.slice \
	$(SYSTEMD_LIB)/tmpfiles.d/tpded.conf $(SYSTEMD_LIB)/sysusers.d/tpded.conf \
	$(MANDIR)/man8/tpded.8 $(MANDIR)/man1/tpdectl.1 $(MANDIR)/man5/tpded.conf.5 \
	$(PREFIX)/share/bash-completion/completions/tpdectl

# The files in systemd/ are whole units, for the default PREFIX.
$(UNITS): $(BUILD)/systemd/%: systemd/% $(BUILD)/prefix
	mkdir -p $(@D)
	sed -e 's|^ExecStart=/usr/local/sbin/|ExecStart=$(SBINDIR)/|' -e 's|^ExecStart=/usr/local/bin/|ExecStart=$(BINDIR)/|' $< > $@

install: all
	install -D -m 755 $(BUILD)/tpdectl '$(DESTDIR)$(BINDIR)/tpdectl'
	install -D -m 755 $(BUILD)/tpded '$(DESTDIR)$(SBINDIR)/tpded'
	for unit in $(UNITS) systemd/tpded-verify.timer systemd/tpded.slice; do \
		install -D -m 644 $$unit "$(DESTDIR)$(SYSTEMD_LIB)/systemd/system/$${unit##*/}" || exit 1; done
	install -D -m 644 systemd/tpded.tmpfiles.conf '$(DESTDIR)$(SYSTEMD_LIB)/tmpfiles.d/tpded.conf'
	install -D -m 644 systemd/tpded.sysusers.conf '$(DESTDIR)$(SYSTEMD_LIB)/sysusers.d/tpded.conf'
	install -D -m 644 tools/man/tpded.8 '$(DESTDIR)$(MANDIR)/man8/tpded.8'
	install -D -m 644 tools/man/tpdectl.1 '$(DESTDIR)$(MANDIR)/man1/tpdectl.1'
	install -D -m 644 tools/man/tpded.conf.5 '$(DESTDIR)$(MANDIR)/man5/tpded.conf.5'
	install -D -m 644 tools/completion/tpdectl.bash \
		'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tpdectl'
	test -e '$(DESTDIR)/etc/tpded/tpded.conf' || \
		install -D -m 644 config/tpded.conf '$(DESTDIR)/etc/tpded/tpded.conf'
	$(if $(DESTDIR),,printf '%s\n' 'Installed. To run it as a service:' \
		'  systemd-sysusers && systemd-tmpfiles --create $(SYSTEMD_LIB)/tmpfiles.d/tpded.conf' \
		'  systemctl daemon-reload' \
		'  tell /etc/tpded/tpded.conf what to watch, then: systemctl enable --now tpded' \
		'  and for a look at all that is stored, once a week: systemctl enable --now tpded-verify.timer')

# What was configured and stored is not ours to delete.
uninstall:
	rm -f $(foreach file,$(INSTALLED),'$(DESTDIR)$(file)')
	echo 'Kept: $(DESTDIR)/etc/tpded and the store ($(DESTDIR)/var/lib/tpded unless configured elsewhere).'

clean:
	rm -rf build build-san-* $(BUILD)

help:
	sed -n 's/^#: \{0,1\}//p' Makefile
#: make                     tpded, tpdectl and libtpd.a in build/
#: make demo                sets up, builds, and shows the whole path on a real training run
#: make check               sets up, builds, and runs all tests
#: make check-threads       the tests that start threads (with SAN=thread)
#: make check-pairs-all     every pair of 16-bit values through the codec (takes long)
#: make check-runs RUNS=DIR  whole training runs through store and daemon and back
#: make check-memory RUN=DIR  peak memory on a file of 2 GB
#: make check-frameworks    real frameworks train while tpded watches; installs PyTorch and others (or FRAMEWORKS_VENV=DIR)
#: make check-arches        the codec's bytes with gcc and clang at all levels, and on aarch64 (installs a cross compiler and qemu-user)
#: make fuzz                libFuzzer on the parsers of checkpoint files, FUZZ_SECONDS=60 each
#: make check-layers        do the parts include only what they may?
#: make check-headers       does each header compile alone, with gcc and clang?
#: make bench               measures ratio and speed
#: make bench-large         memory for 10 GB checkpoints, and restore at depth 16 (RUN=DIR, LARGE_SIZE=BYTES; an hour, 80 GB of disk)
#: make bench-training      how much slower training is with tpded beside it (45 minutes; a trial: PAIRS=2 INTERVAL=30)
#: make install             to DESTDIR and PREFIX (/usr/local); make uninstall takes it away
#: make clean
#:
#: CC=clang                 another compiler             WERROR=1  warnings are errors
#: SAN=address,undefined    a sanitizer build            V=1       show the commands
#: SAN=thread               threads (clang is faster)    JOBS=N    jobs and tests at once (all CPUs)

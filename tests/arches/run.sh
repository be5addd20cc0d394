#!/bin/bash
# run.sh - `make check-arches`: does the codec write the same bytes whatever compiled it, and on whatever it runs?
#
# base/ and codec/ with gcc and clang, at -O0, -O2 and -O3, the loops of each form of the kernels among them, for this CPU and for aarch64,
# which qemu-user then plays (not clang -O0, for time). Each build, with each form of the kernels that this CPU has (TPD_CPU; plain at -O3
# alone), encodes the chunks of lone_codec_bits.c: all that comes out must be the same file, plans, payloads and statistics. Then each
# decodes what each other wrote: files that are the same are decoded once, so where all is well that is one file for everybody.
#
# BUILD names the directory of the builds, CPPFLAGS what they are compiled with as well (-ffp-contract=fast must fail), JOBS how many at once.
# The compilers and qemu come from tools/setup.sh, the libraries for aarch64 from tools/debs.sh: nothing of that CPU's is installed.
set -u
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "${BUILD:=build}/arches" && dir=$(cd "$BUILD/arches" && pwd) || exit 1
libs=$dir/libs
program=tests/lone_codec_bits
unset MAKEFLAGS MFLAGS MAKELEVEL TPD_CPU
: "${JOBS:=$(nproc)}" "${CPPFLAGS:=}"
failures=0
fail() { echo "arches: $*"; failures=$((failures + 1)); }
[ "$(uname -m)" = x86_64 ] || { echo "arches: this is $(uname -m): the forms for x86_64 cannot be compared with it"; exit 1; }
tools/debs.sh "$libs" arm64 libzstd-dev libxxhash-dev libssl-dev || exit 1

# What the bytes of a frame are is libzstd's business: it must be the same one.
version() { PKG_CONFIG_LIBDIR=$1 pkg-config --modversion libzstd; }
here=$(pkg-config --modversion libzstd) there=$(version "$libs/usr/lib/aarch64-linux-gnu/pkgconfig")
[ "$here" = "$there" ] || { echo "arches: libzstd is $here here and $there for aarch64: their frames may differ"; exit 1; }

# build NAME LEVEL VARIABLE...: no hardening, which -O0 has no use for; what is not called is left out, so that libcrypto is not needed
build() {
	local name=$1 level=$2 strict=1
	shift 2
	[ "$level" != -O0 ] || strict= # gcc's intrinsics are macros there, with warnings of their own
	make -j"$JOBS" WERROR=$strict HARDENING= CFLAGS="$level -ffunction-sections" KERNEL_CFLAGS="$level" LDFLAGS=-Wl,--gc-sections \
		CPPFLAGS="$CPPFLAGS" BUILD="$dir/$name" "$@" "$dir/$name/$program" >"$dir/$name.log" 2>&1 ||
		{ fail "$name does not build: $(grep -m 1 -E 'error|Error' "$dir/$name.log")"; return 1; }
}

# Each that encodes and decodes has a name, a command and a form.
names=() commands=() forms=()
add() { names+=("$1") commands+=("$2") forms+=("$3"); }
started=$SECONDS
for level in -O0 -O2 -O3; do
	tried=(scalar avx2 avx512)
	[ "$level" != -O3 ] || tried+=(plain) # as it is built for use
	for compiler in gcc clang; do
		name=$compiler$level
		build "$name" "$level" CC="$compiler" && for form in "${tried[@]}"; do
			TPD_CPU=$form "$dir/$name/$program" encode /dev/null /dev/null 2>&1 | grep -q 'this CPU cannot do that' ||
				add "$name-$form" "$dir/$name/$program" "$form"
		done
		[ "$compiler$level" != clang-O0 ] || continue
		cross=aarch64-linux-gnu-gcc
		[ "$compiler" = gcc ] || cross='clang --target=aarch64-linux-gnu'
		name=aarch64-$name
		build "$name" "$level" CC="$cross" LIB_CFLAGS="-isystem $libs/usr/include -isystem $libs/usr/include/aarch64-linux-gnu" \
			CORE_LDLIBS="-static -no-pie -L$libs/usr/lib/aarch64-linux-gnu -lzstd -lxxhash -lm" &&
			add "$name" "qemu-aarch64 $dir/$name/$program" scalar
	done
done
[ ${#names[@]} -gt 0 ] || exit 1
built=$((SECONDS - started)) started=$SECONDS

# each FUNCTION: for all, JOBS at a time
each() {
	local i
	for i in "${!names[@]}"; do
		while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
		"$1" "$i" &
	done
	wait
}
made=$dir/made
rm -rf "$made"
mkdir -p "$made"
"$dir/gcc-O2/$program" make "$made/chunks" || exit 1

encode() {
	# shellcheck disable=SC2086
	TPD_CPU=${forms[$1]} ${commands[$1]} encode "$made/chunks" "$made/${names[$1]}.out" >"$made/${names[$1]}.said" 2>&1 ||
		touch "$made/${names[$1]}.failed"
}
each encode
distinct=() differ=0
for name in "${names[@]}"; do
	[ ! -e "$made/$name.failed" ] || { fail "$name does not encode: $(tail -n 1 "$made/$name.said")"; continue; }
	for other in "${distinct[@]}"; do
		! cmp -s "$made/$other.out" "$made/$name.out" || continue 2
	done
	[ ${#distinct[@]} -eq 0 ] || fail "$name writes other bytes than ${distinct[0]}: $(cmp "$made/${distinct[0]}.out" "$made/$name.out")"
	distinct+=("$name")
done

decode() {
	local file
	for file in "${distinct[@]}"; do
		# shellcheck disable=SC2086
		TPD_CPU=${forms[$1]} ${commands[$1]} decode "$made/chunks" "$made/$file.out" >"$made/${names[$1]}.$file.said" 2>&1 ||
			echo "${names[$1]} does not decode what $file wrote: $(tail -n 1 "$made/${names[$1]}.$file.said")" >>"$made/not-decoded"
	done
}
each decode
[ ! -e "$made/not-decoded" ] || while read -r line; do fail "$line"; done <"$made/not-decoded"

echo "arches: ${names[*]}"
echo "arches: ${#distinct[@]} output(s) of ${#names[@]} that encoded, each decoded by all: $(head -n 1 "$made/${distinct[0]:-none}.said")"
echo "arches: $built s to build, $((SECONDS - started)) s to run"
[ "$failures" -eq 0 ] && [ ${#distinct[@]} -eq 1 ]

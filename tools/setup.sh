#!/bin/bash
# setup.sh [GROUP...] - brings what building, testing and the demo need and this machine has not got.
#
#   build   compiler, make, pkg-config and the libraries (always)
#   check   libcheck, the sqlite3 shell, Btrfs      demo    the sqlite3 shell
#   clang   the second compiler                     python  python3 with venv (benchmarks, frameworks)
#   bench   as python; the peers xdelta3 and zstd   fuzz    clang with libFuzzer, and llvm's coverage tools
#   arches  a compiler and C library for aarch64, and qemu to run what they make
#
# It asks for the things themselves (a command, a pkg-config module), not for packages: a library installed in another
# way is as good. When all is there it is silent and takes some milliseconds. Else it names the packages that it is
# about to install with apt-get, as root or through sudo; where that cannot be, it says so in one sentence and fails.
set -u

fail() { printf 'tools/setup.sh: %s\n' "$1" >&2; exit 1; }

missing=()
need_command() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("$2"); }
need_module() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); }

need_build() {
	need_command make make
	need_command gcc gcc
	need_command ar binutils
	[ -e /usr/include/stdio.h ] || echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || missing+=(libc6-dev)
	need_command pkg-config pkg-config
	need_module libuv libuv1-dev
	need_module libzstd libzstd-dev
	need_module inih libinih-dev
	need_module sqlite3 libsqlite3-dev
	need_module libxxhash libxxhash-dev
	need_module libcrypto libssl-dev
}

need_arches() {
	need_command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
	[ -e /usr/aarch64-linux-gnu/lib/libc.a ] || missing+=(libc6-dev-arm64-cross)
	need_command qemu-aarch64 qemu-user
}

# libFuzzer and the sanitizers are a package of their own.
need_fuzz() {
	need_command clang clang
	need_command llvm-cov llvm
	echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n); int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return !p + !n; }' |
		clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null && return
	missing+=(libclang-rt-dev)
}

need_build
for group in "$@"; do
	case $group in
	build) ;;
	check) need_module check check; need_command sqlite3 sqlite3; need_command mkfs.btrfs btrfs-progs ;;
	demo) need_command sqlite3 sqlite3 ;;
	clang) need_command clang clang ;;
	fuzz) need_fuzz ;;
	arches) need_arches ;;
	python | bench)
		python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
		[ "$group" = python ] || { need_command xdelta3 xdelta3; need_command zstd zstd; } ;;
	*) fail "unknown group '$group' (build, check, demo, clang, fuzz, arches, python, bench)" ;;
	esac
done
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

command -v apt-get >/dev/null || fail "cannot install ${missing[*]}: there is no apt-get here; install them in your system's way"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "cannot install ${missing[*]}: not root, and there is no sudo"
	as_root=(sudo)
fi

echo "Installing with apt-get: ${missing[*]}"
log=$(mktemp) || fail 'cannot make a temporary file'
trap 'rm -f "$log"' EXIT
apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null
}
# One sentence out of apt's many: its last error line.
reason() { grep -E '^(E:|sudo:)' "$log" | tail -n 1 | sed 's/^E: //' | grep . || tail -n 1 "$log" | grep . || echo 'no reason given'; }

# Asked for on the terminal, before its output goes to the log.
[ ${#as_root[@]} -eq 0 ] || sudo -v || fail "cannot install ${missing[*]}: sudo did not let us"
apt update || fail "cannot install ${missing[*]}: apt-get update failed: $(reason)"
# A mirror out of reach is only a warning to update, and the true reason of what then fails. A foreign one may be dead.
stale=$(grep -m 1 -E '^W: Failed to fetch' "$log" | sed -E 's/^W: /; /; s/  +/: /')
apt install -y --no-install-recommends "${missing[@]}" ||
	fail "cannot install ${missing[*]}: apt-get install failed: $(reason)$stale"

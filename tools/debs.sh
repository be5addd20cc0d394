#!/bin/bash
# debs.sh DIR ARCHITECTURE PACKAGE... - Debian packages of another architecture, unpacked into DIR and not installed: headers and libraries
# to build for that CPU with. Quick when they are there already. apt-get is given lists and directories of its own, so that this machine's
# packages, its architectures among them, stay as they are; no rights are needed.
set -u
[ $# -ge 3 ] || { echo 'usage: tools/debs.sh DIR ARCHITECTURE PACKAGE...' >&2; exit 2; }
dir=$1 architecture=$2
shift 2
fail() { printf 'tools/debs.sh: %s\n' "$1" >&2; exit 1; }

# Which ones they are, written last: what is half there has none.
record=$dir/packages.txt
wanted=$(printf '%s\n' "$architecture" "$@")
[ -f "$record" ] && [ "$(cat "$record")" = "$wanted" ] && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "cannot fetch $*: there is no apt-get here"

echo "Unpacking into $dir, for $architecture: $*"
rm -rf "$dir"
mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" && : >"$dir/apt/status" || fail "cannot make '$dir'"
dir=$(cd "$dir" && pwd)
apt() {
	(cd "$dir/apt" && DEBIAN_FRONTEND=noninteractive apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
		-o Dir::State="$dir/apt" -o Dir::State::lists="$dir/apt/lists" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" \
		-o APT::Sandbox::User= "$@" >"$dir/apt/log" 2>&1 </dev/null)
}
reason() { grep -E '^E:' "$dir/apt/log" | tail -n 1 | sed 's/^E: //' | grep . || tail -n 1 "$dir/apt/log" | grep . || echo 'no reason given'; }
apt update || fail "apt-get update failed for $architecture: $(reason)"
apt download "$@" || fail "cannot fetch $* for $architecture: $(reason)"
for deb in "$dir"/apt/*.deb; do
	dpkg-deb -x "$deb" "$dir" || fail "cannot unpack '$deb'"
done
rm -rf "$dir/apt"
printf '%s\n' "$wanted" >"$record"

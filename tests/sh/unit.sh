#!/bin/bash
# unit.sh - the systemd unit: is it valid, and is its exposure at most 1.0? Asked from systemd itself, where it is there.
set -u
cd "$(dirname "$0")/../.." || exit 1
limit=1.0

fail() { echo "unit: $1"; exit 1; }

for file in tpded.service tpded-verify.service tpded-verify.timer tpded.slice tpded.sysusers.conf tpded.tmpfiles.conf; do
	[ -s "systemd/$file" ] || fail "there is no systemd/$file"
done
command -v systemd-analyze >/dev/null || { echo 'skipped: there is no systemd-analyze here'; exit 77; }

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cp systemd/tpded-verify.timer systemd/tpded.slice "$dir/"
for unit in tpded tpded-verify; do
	# verify wants the program to be where ExecStart says: not installed yet, so anything executable stands for it.
	sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "systemd/$unit.service" >"$dir/$unit.service"
	grep -q '^ExecStart=/bin/true --config' "$dir/$unit.service" || fail "$unit.service has no ExecStart=... --config"
	# Of a top-level slice (no dash in its name): below another one its weight would not count against trainers'.
	grep -q '^Slice=tpded.slice$' "$dir/$unit.service" || fail "$unit.service is not in tpded.slice"
done
systemd-analyze verify --man=no "$dir"/tpded.service "$dir"/tpded-verify.service "$dir"/tpded-verify.timer "$dir"/tpded.slice \
	>"$dir/verify" 2>&1 && [ ! -s "$dir/verify" ] ||
	{ cat "$dir/verify"; fail 'systemd-analyze verify has complaints'; }

# A version of systemd without --offline cannot answer.
for unit in tpded tpded-verify; do
	systemd-analyze --no-pager security --offline=true "$dir/$unit.service" >"$dir/security" 2>&1 ||
		{ tail -n 1 "$dir/security"; echo 'skipped: this systemd-analyze does not do it offline'; exit 77; }
	score=$(sed -n "s/.*exposure level for $unit.service: \([0-9.]*\).*/\1/p" "$dir/security")
	[ -n "$score" ] || fail 'systemd-analyze security gave no score'
	awk -v score="$score" -v limit=$limit 'BEGIN { exit !(score <= limit) }' ||
		{ grep '✗' "$dir/security"; fail "exposure of $unit.service is $score, above $limit"; }
	echo "unit: $unit.service verified, exposure $score (at most $limit)"
done

# The accounts and directories that the unit relies on, in a root of their own (systemd-sysusers takes any root).
if command -v systemd-sysusers >/dev/null; then
	mkdir -p "$dir/root/etc"
	systemd-sysusers --root="$dir/root" "$PWD/systemd/tpded.sysusers.conf" >"$dir/sysusers" 2>&1 ||
		{ cat "$dir/sysusers"; fail 'systemd-sysusers refuses tpded.sysusers.conf'; }
	grep -q '^tpded:' "$dir/root/etc/passwd" || fail 'tpded.sysusers.conf makes no user tpded'
fi

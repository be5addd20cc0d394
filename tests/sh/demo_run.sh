#!/bin/bash
# demo_run.sh [RUN] - a training run through the store and back: every file's bytes, modes and times, in any order of ingest,
# with short chains, by the daemon and beside it, from a damaged and a rebuilt catalog. RUN is a directory of checkpoint-N,
# the recorded one unless given (`make check-runs RUNS=DIR` goes through many). BUILD names the directory of the programs.
set -u
recorded=${1:+$(realpath "$1")}
cd "$(dirname "$0")/../.." || exit 1
recorded=${recorded:-$PWD/tools/demo/run}
build=$(cd "${BUILD:-build}" && pwd) || exit 1
[ -x "$build/tpdectl" ] || { echo "no $build/tpdectl"; exit 1; }
dir=$(mktemp -d) || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
unset TPDED_STORE
failures=0
fail() { echo "demo_run: $*"; failures=$((failures + 1)); }
ctl() { "$build/tpdectl" "$@" >"$dir/out" 2>&1 || fail "tpdectl $*: $(tail -n 3 "$dir/out")"; }
steps=$(cd "$recorded" && ls -d checkpoint-*/ | tr -dc '0-9\n' | sort -n)
first=$(head -n 1 <<<"$steps") last=$(tail -n 1 <<<"$steps") middle=$(sed -n 3p <<<"$steps")
[ "$(wc -l <<<"$steps")" -ge 4 ] || { echo "demo_run: '$recorded' holds fewer than four checkpoints"; exit 1; }
steps=$(echo $steps)
shuffled=$(tr ' ' '\n' <<<"$steps" | awk '{ print ($1 * 7919) % 101, $1 }' | sort -n | cut -d' ' -f2 | tr '\n' ' ')

# The run as a trainer leaves it: private weights, times with nanoseconds, and things beside the files.
cp -r "$recorded" "$dir/run" || exit 1
chmod 600 "$dir"/run/*/model.safetensors
mkdir "$dir/run/checkpoint-$middle/global_step$middle"
ln -s model.safetensors "$dir/run/checkpoint-$middle/weights"
printf "global_step$middle" >"$dir/run/checkpoint-$middle/latest"
: >"$dir/run/checkpoint-$middle/global_step$middle/empty"
chmod 750 "$dir/run/checkpoint-$middle/global_step$middle"
find "$dir/run" -mindepth 1 | sort | awk '{ printf "%s\t%d.%09d\n", $0, 1700000000 + NR * 61, NR * 12345 }' |
	while IFS=$'\t' read -r path time; do touch -h -d "@$time" "$path"; done

# Everything that must come back about the directory $1 (its own mode and time aside: they are the target's)
describe() {
	(cd "$1" && find . -mindepth 1 ! -type l -printf '%P %y %m %T@\n' -o -mindepth 1 -type l -printf '%P %y %l\n' | sort &&
		find . -type f -print0 | sort -z | xargs -0 sha256sum)
}
for step in $steps; do describe "$dir/run/checkpoint-$step" >"$dir/$step.txt"; done

# restored STORE STEPS: each comes back as it was
restored() {
	local store=$1 step
	shift
	for step; do
		rm -rf "$dir/back"
		ctl --store "$store" restore "demo@$step" --to "$dir/back"
		describe "$dir/back" 2>/dev/null | diff "$dir/$step.txt" - >"$dir/diff" || fail "$store: demo@$step differs: $(head -n 3 "$dir/diff")"
	done
}
# Everything but the daemon's own tables
dump() { sqlite3 "$1" .dump | grep -Ev '^INSERT INTO "?(jobs|events|sqlite_sequence)"? '; }
largest_depth() { "$build/tpdectl" --store "$1" --json list demo | grep -o '"depth":[0-9]*' | cut -d: -f2 | sort -n | tail -n 1; }

store=$dir/in-order
for step in $steps; do ctl --store "$store" ingest "$dir/run/checkpoint-$step" --run demo; done
deepest=$(($(wc -w <<<"$steps") - 1))
[ "$(largest_depth "$store")" -eq $deepest ] || fail "in order: depth $(largest_depth "$store") instead of $deepest"
restored "$store" $steps
ctl --store "$store" verify
for step in $steps; do
	ctl --store "$store" ingest "$dir/run/checkpoint-$step" --run demo
	grep -q 'already stored' "$dir/out" || fail "in order: demo@$step became a new version"
done

store=$dir/shuffled
for step in $shuffled; do ctl --store "$store" ingest "$dir/run/checkpoint-$step" --run demo; done
restored "$store" $(tac -s ' ' <<<"$shuffled")
ctl --store "$store" verify

store=$dir/shallow
printf '[store]\npath = %s\nmax_depth = 2\n' "$store" >"$dir/shallow.conf"
for step in $steps; do ctl --config "$dir/shallow.conf" ingest "$dir/run/checkpoint-$step" --run demo; done
[ "$(largest_depth "$store")" -eq 2 ] || fail "max_depth=2: depth $(largest_depth "$store")"
restored "$store" $steps
ctl --store "$store" verify

# The originals are gone: the same from the store alone, and the chain goes on.
store=$dir/moved
cp -a "$dir/run" "$dir/moving"
for step in $steps; do
	ctl --store "$store" ingest "$dir/moving/checkpoint-$step" --run demo
	[ "$step" -gt "$middle" ] || rm -r "$dir/moving/checkpoint-$step"
done
restored "$store" $steps

# By the daemon, and read beside it: what it stores is what ingest stores.
store=$dir/daemon
printf '%s\n' '[store]' "path=$store" '[daemon]' "control_socket=$dir/c.sock" '[watch:demo]' "path=$dir/run" settle=0.5 >"$dir/daemon.conf"
"$build/tpded" --config "$dir/daemon.conf" 2>"$dir/daemon.log" &
daemon=$!
for ((i = 0; i < 6000; i++)); do
	[ "$("$build/tpdectl" --store "$store" --json list demo 2>/dev/null | grep -o '"step":' | wc -l)" -le $deepest ] || break
	kill -0 $daemon 2>/dev/null || { fail "the daemon ended: $(tail -n 3 "$dir/daemon.log")"; break; }
	sleep 0.1
done
restored "$store" $shuffled
ctl --store "$store" verify
kill $daemon
wait $daemon || fail "the daemon ended with $?: $(tail -n 3 "$dir/daemon.log")"
daemon=

# The number of threads changes no byte of what is stored (times aside, which the manifest holds).
store=$dir/one-thread
for step in $steps; do ctl --store "$store" --threads 1 ingest "$dir/run/checkpoint-$step" --run demo; done
payloads() { (cd "$1/objects" && find . -name 'f*' -print0 | sort -z | xargs -0 sha256sum); }
for other in in-order daemon; do
	diff <(payloads "$store") <(payloads "$dir/$other") >"$dir/diff" || fail "threads: $other: $(head -n 3 "$dir/diff")"
done

# The catalog: deleted and rebuilt, or brought back by the next writer, it is the same again.
if command -v sqlite3 >/dev/null; then
	for store in "$dir/in-order" "$dir/shuffled" "$dir/shallow" "$dir/daemon"; do
		dump "$store/catalog.sqlite" >"$dir/before.sql"
		[ "$(grep -c '^INSERT' "$dir/before.sql")" -gt 100 ] || fail "$store: nothing in the catalog"
		rm "$store/catalog.sqlite"
		restored "$store" "$last"
		ctl --store "$store" rebuild-catalog
		dump "$store/catalog.sqlite" | diff "$dir/before.sql" - >"$dir/diff" || fail "$store: the rebuilt catalog differs: $(head -n 3 "$dir/diff")"
		rm "$store/catalog.sqlite"
		ctl --store "$store" ingest "$dir/run/checkpoint-$last" --run demo
		dump "$store/catalog.sqlite" | diff "$dir/before.sql" - >"$dir/diff" || fail "$store: the catalog made by ingest differs: $(head -n 3 "$dir/diff")"
		restored "$store" "$first" "$last"
	done
else
	echo 'demo_run: skipped: catalogs are not compared without the sqlite3 shell'
fi

[ $failures -eq 0 ] && echo "demo_run: all as it should be ($(wc -w <<<"$steps") checkpoints)"
[ $failures -eq 0 ]

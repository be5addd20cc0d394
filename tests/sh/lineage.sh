#!/bin/bash
# lineage.sh - runs that begin from others, as whole programs: named, found, refused and damaged; by tpdectl and by the daemon; what list, show and
# the catalog tell of it. BUILD names the directory of the programs.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
[ -x "$build/tpded" ] && [ -x "$build/tpdectl" ] || { echo "no programs in $build"; exit 1; }
run=$PWD/tools/demo/run
dir=$(mktemp -d) || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
unset TPDED_STORE NOTIFY_SOCKET JOURNAL_STREAM
failures=0
patience=${PATIENCE:-$([ -n "${SAN:-}" ] && echo 300 || echo 60)}
fail() { echo "lineage: $*"; failures=$((failures + 1)); }
# expect CODE ARGUMENTS...: run it; its output is in $dir/out and $dir/err
expect() {
	local wanted=$1 got
	shift
	"$build/tpdectl" --store "$dir/store" "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	[ $got -eq "$wanted" ] || fail "exit code $got instead of $wanted: $*: $(head -c 600 "$dir/err" "$dir/out")"
}
says() { grep -qF -- "$1" "$dir/out" || fail "the output lacks '$1': $(head -c 600 "$dir/out")"; }
complains() { grep -qF -- "$1" "$dir/err" || fail "the error lacks '$1': $(head -c 600 "$dir/err")"; }
is_back() {
	rm -rf "$dir/back"
	expect 0 --quiet restore "$1" --to "$dir/back"
	diff -r "$run/$2" "$dir/back" >/dev/null || fail "$1 is not $2"
}
bytes() { expect 0 --json show "$1"; sed 's/.*"stored":\([0-9]*\),"depth".*/\1/' "$dir/out"; }

for step in 20 40; do expect 0 ingest "$run/checkpoint-$step" --run demo --base none; done
expect 0 ingest "$run/checkpoint-60" --run alone --base none; says 'alone@60~1'
! grep -q ', from ' "$dir/out" || fail "what stands alone is from something: $(cat "$dir/out")"

# --- named ---
expect 0 ingest "$run/checkpoint-60" --run named --base demo@20; says 'named@60~1'; says ', from demo@20'
expect 0 show named@60; says 'demo@20, of another run, depth 1'
expect 0 list named; says 'demo@20'
expect 0 --json list named; says '"reference":"demo@20~1"'
is_back named@60 checkpoint-60
expect 0 verify named
[ "$(bytes named@60)" -lt "$(bytes alone@60)" ] || fail 'with a base it takes as much as without'
expect 0 --json ingest "$run/checkpoint-60" --run latest --base demo; says '"base":"demo@40"'
expect 0 ingest "$run/checkpoint-80" --run latest --base alone; says 'latest@80'; complains "does not refer to 'alone'"
expect 0 show latest@80; says 'latest@60, depth 3'

# --- refused, before anything is stored ---
expect 4 ingest "$run/checkpoint-60" --run refused --base ./nowhere; complains "there is no './nowhere'"
expect 4 ingest "$run/checkpoint-60" --run refused --base demo@30; complains "run 'demo' has no checkpoint '30'"
expect 4 ingest "$run/checkpoint-60" --run refused --base nobody; complains "no run 'nobody'"
expect 2 ingest "$run/checkpoint-60" --run refused --base demo@x; complains 'RUN@STEP'
expect 2 show alone@60 --base demo; complains "no option '--base'"
expect 4 list refused

# --- found ---
expect 0 ingest "$run/checkpoint-80" --run found; says ', from latest@80'
is_back found@80 checkpoint-80
expect 0 ingest "$run/checkpoint-80" --run still --base auto; says ', from '

# --- a path ---
expect 0 ingest "$run/checkpoint-60" --run path --base "$run/checkpoint-40"; says ', from models/checkpoint-40@0'
cp -r "$run/checkpoint-40" "$dir/model"
mkdir "$dir/here"
cd "$dir/here" || exit 1
expect 0 ingest "$run/checkpoint-80" --run path2 --base ../model; says ', from models/model@0'
expect 0 ingest "$run/checkpoint-100" --run path3 --base ../model/; says ', from models/model@0'
cd "$OLDPWD" || exit 1
expect 0 --json list models; [ "$(grep -o '"step":' "$dir/out" | wc -l)" -eq 2 ] || fail "a model is stored twice: $(cat "$dir/out")"

# --- the catalog, as it is and made again ---
if command -v sqlite3 >/dev/null; then
	catalog=$dir/store/catalog.sqlite
	[ "$(sqlite3 "$catalog" "SELECT kind || ' ' || reference FROM chain WHERE run = 'named'")" = 'delta demo@20~1' ] ||
		fail "the view chain says $(sqlite3 "$catalog" "SELECT * FROM chain WHERE run = 'named'")"
	sqlite3 "$catalog" .dump >"$dir/before"
	rm "$catalog"
	expect 0 rebuild-catalog
	sqlite3 "$catalog" .dump | diff "$dir/before" - >/dev/null || fail 'the rebuilt catalog has another dump'
fi

# --- by the daemon ---
mkdir -p "$dir/watched"/{given,lost,none}
printf '%s\n' '[store]' "path=$dir/store" '[daemon]' "control_socket=$dir/c.sock" scan_interval=1h \
	'[watch:d/given]' "path=$dir/watched/given" settle=300ms base=demo@20 '[watch:d/lost]' "path=$dir/watched/lost" settle=300ms \
	base=nobody@7 '[watch:d/none]' "path=$dir/watched/none" settle=300ms base=none >"$dir/c.conf"
"$build/tpded" --config "$dir/c.conf" 2>"$dir/log" &
daemon=$!
for watch in given lost none; do cp -r "$run/checkpoint-100" "$dir/watched/$watch/"; done
for watch in given lost none; do
	for ((i = 0; i < patience * 10; i++)); do
		"$build/tpdectl" --store "$dir/store" show "d/$watch@100" >/dev/null 2>&1 && break
		sleep 0.1
	done
done
kill $daemon
wait $daemon || fail "the daemon ended with $?"
daemon=
expect 0 show d/given@100; says 'demo@20, of another run, depth 1'
grep -q "d/lost@100~1 is stored without its base: no run 'nobody'" "$dir/log" || fail "the log is silent about a base that there is not: $(tail -3 "$dir/log")"
! grep -q 'd/\(given\|none\)@.*without its base' "$dir/log" || fail "a base is missed that is not: $(cat "$dir/log")"
expect 0 show d/none@100; says 'none: a keyframe'
for watch in given lost none; do is_back d/$watch@100 checkpoint-100; done

# --- gone ---
expect 0 show demo@20
id=$(sed -n 's/^  id *//p' "$dir/out")
mv "$dir/store/objects/${id:0:2}/$id.0" "$dir/aside"
expect 5 restore named@60 --to "$dir/gone"; complains "named@60 needs demo@20 (checkpoint ${id:0:16}), which is not in the store"
expect 5 verify named@60
expect 0 ingest "$run/checkpoint-120" --run after --base alone@60; says ', from alone@60'
expect 0 ingest "$run/checkpoint-20" --run demo # mended
is_back named@60 checkpoint-60
is_back demo@20 checkpoint-20

[ $failures -eq 0 ] && echo 'lineage: passed'
exit $((failures > 0))

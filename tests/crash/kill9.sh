#!/bin/bash
# kill9.sh [KILLS [SEED]] - kills tpded with SIGKILL at random moments while a real run is replayed, over and over.
#
# What must hold: whatever the catalog had reported as stored before a kill is still there after it, and in the end every
# checkpoint of every replayed run is stored, verifies, and restores with the SHA-256 of its files. At the moment of each kill the
# daemon is stopped first (SIGSTOP), so that the phase it was in can be read off the store:
#
#   catalog   the catalog is locked, or a rollback journal lies beside it
#   publish   an unfinished checkpoint has its manifest
#   encode    an unfinished checkpoint has its begin file
#   survey    a job runs, nothing of it is in the store yet (layout, statistics, samples)
#   idle      no job runs
#
# It goes on beyond KILLS until at least half of them met a job in flight (at most 4 x KILLS).
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
kills=${1:-200} seed=${2:-1}
recorded=tools/demo/run
steps='20 40 60 80 100 120'
order='config.json generation_config.json model.safetensors training_args.bin optimizer.pt scheduler.pt rng_state.pth trainer_state.json'
RANDOM=$seed

dir=$(mktemp -d "${TMPDIR:-/tmp}/tpded-kill9.XXXXXX") || exit 1
daemon='' writer=''
cleanup() {
	for pid in $daemon $writer; do kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
	rm -rf "$dir"
}
trap cleanup EXIT
fail() { echo "failed: $1" >&2; tail -n 5 "$dir/tpded.log" >&2; exit 1; }

store=$dir/store watched=$dir/runs catalog=$dir/store/catalog.sqlite
mkdir "$watched"
cat >"$dir/conf" <<EOF
[store]
path = $store
part_size = 1M
[daemon]
control_socket = $dir/control.sock
scan_interval = 1
[watch:k]
path = $watched
settle = 0.2
EOF
ctl() { "$build/tpdectl" --config "$dir/conf" --quiet "$@"; }
sql() { sqlite3 -readonly "$catalog" "$1" 2>/dev/null; }
start() { "$build/tpded" --config "$dir/conf" >>"$dir/tpded.log" 2>&1 & daemon=$!; }
alive() { kill -0 "$daemon" 2>/dev/null || fail 'the daemon ended by itself'; }

# The Trainer's pattern: in place, file after file; run after run until told to stop. A complete run is noted.
write_runs() {
	local run step file
	for ((run = 1; ; run++)); do
		for step in $steps; do
			mkdir -p "$watched/run$run/checkpoint-$step"
			for file in $order; do
				cat "$recorded/checkpoint-$step/$file" >"$watched/run$run/checkpoint-$step/$file"
			done
		done
		echo "$run" >"$dir/complete"
		[ ! -e "$dir/stop" ] || return 0
		# Not further ahead of the daemon than some runs: it shall have work, not a mountain.
		while [ ! -e "$dir/stop" ] && [ $((run * 6)) -gt $((24 + $(cat "$dir/stored" 2>/dev/null || echo 0))) ]; do sleep 0.05; done
	done
}

phase() {
	local unfinished
	unfinished=$(ls -d "$store"/ingest/*/ 2>/dev/null | head -n 1)
	if [ -e "$catalog-journal" ]; then echo catalog
	elif [ -n "$unfinished" ] && [ -e "$unfinished/manifest" ]; then echo publish
	elif [ -n "$unfinished" ]; then echo encode
	elif ! running=$(sql "SELECT count(*) FROM jobs WHERE state = 'running'"); then echo catalog
	elif [ "$running" -gt 0 ]; then echo survey
	else echo idle; fi
}

write_runs & writer=$!
declare -A count=([idle]=0 [survey]=0 [encode]=0 [publish]=0 [catalog]=0)
done_kills=0 inflight=0
: >"$dir/reported"
while [ $done_kills -lt "$kills" ] || [ $((inflight * 2)) -lt "$kills" ]; do
	[ $done_kills -lt $((4 * kills)) ] || fail "only $inflight of $done_kills kills met a job in flight"
	start
	sleep "0.$(printf %03d $((RANDOM % 1000)))"
	alive
	kill -STOP "$daemon"
	now=$(phase)
	sql "SELECT run || '@' || step || '~' || version || ' ' || id FROM checkpoints ORDER BY id" >"$dir/now" && sort -o "$dir/now" "$dir/now"
	kill -9 "$daemon"
	wait "$daemon" 2>/dev/null
	daemon=''
	count[$now]=$((count[$now] + 1))
	[ "$now" = idle ] || inflight=$((inflight + 1))
	done_kills=$((done_kills + 1))
	# What was reported earlier, and just now, is in the store (read without repairing anything).
	sort -u -o "$dir/reported" "$dir/reported" "$dir/now"
	ctl --json list | tr '{' '\n' | sed -n 's/.*"name":"\([^"]*\)".*"id":"\([0-9a-f]*\)".*/\1 \2/p' | sort >"$dir/there"
	lost=$(comm -23 "$dir/reported" "$dir/there" | head -n 3)
	[ -z "$lost" ] || fail "reported as stored, and gone after kill $done_kills: $lost"
	wc -l <"$dir/there" >"$dir/stored.new" && mv "$dir/stored.new" "$dir/stored"
	[ $((done_kills % 25)) -ne 0 ] || echo "$done_kills kills, $inflight in flight, $(cat "$dir/stored") checkpoints stored"
done

touch "$dir/stop"
wait "$writer"
writer=''
runs=$(cat "$dir/complete")
start
for ((i = 0; $(sql 'SELECT count(*) FROM checkpoints' || echo 0) < runs * 6; i++)); do
	alive
	[ $i -lt 1200 ] || fail "only $(sql 'SELECT count(*) FROM checkpoints') of $((runs * 6)) checkpoints are stored"
	sleep 0.1
done
kill "$daemon"
wait "$daemon" || fail 'the daemon did not stop cleanly'
daemon=''
[ "$(ls "$store/ingest" | wc -l)" -eq 0 ] || fail "unfinished checkpoints are left: $(ls "$store/ingest")"
[ "$(sql 'SELECT max(version) FROM checkpoints')" -eq 1 ] || fail 'a checkpoint was stored twice'

ctl verify >"$dir/verify" || fail "verify: $(grep -v '^ok' "$dir/verify" | head -n 3)"
for ((run = 1; run <= runs; run++)); do
	for step in $steps; do
		ctl restore "k/run$run@$step" --to "$dir/out" || fail "restore k/run$run@$step"
		(cd "$recorded/checkpoint-$step" && sha256sum -- *) | (cd "$dir/out" && sha256sum --quiet -c -) || fail "k/run$run@$step differs"
		rm -rf "$dir/out"
	done
done
printf 'phases:'
for name in idle survey encode publish catalog; do printf ' %s %d' $name "${count[$name]}"; done
printf '\n%d kills, %d with a job in flight; %d checkpoints of %d runs stored, verified and restored\n' \
	$done_kills $inflight $((runs * 6)) "$runs"

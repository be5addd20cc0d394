#!/bin/bash
# demo.sh - shows tpded at work, in under a minute: `make demo` builds it and calls this.
#
# A real training run of six checkpoints (tools/demo/run, see tools/make_checkpoints.py) is replayed into a temporary directory
# the way the Hugging Face Trainer writes it. tpded stores each as a delta against the one before; then an original is
# deleted, restored and compared. Everything happens in that directory, which is removed at the end; status 1 on any failure.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
recorded=tools/demo/run
steps='20 40 60 80 100 120'
# As the Trainer writes them; trainer_state.json comes last and says that the checkpoint is complete.
order='config.json generation_config.json model.safetensors training_args.bin optimizer.pt scheduler.pt rng_state.pth trainer_state.json'
patience=30 # seconds that one checkpoint may take

bold='' dim='' green='' red='' plain='' live=''
if [ -t 1 ]; then
	live=yes
	[ -n "${NO_COLOR:-}" ] || [ "${TERM:-dumb}" = dumb ] || { bold=$'\033[1m' dim=$'\033[2m' green=$'\033[32m' red=$'\033[31m' plain=$'\033[0m'; }
fi
number=0
step() { number=$((number + 1)); printf '\n%s%d. %s%s\n' "$bold" $number "$1" "$plain"; }
line() { [ -z "$live" ] || printf '\r\033[K   %s' "$1"; } # a line that the next one replaces
done_line() { [ -z "$live" ] || printf '\r\033[K'; printf '   %s\n' "$1"; }
show() { printf '%s   $ %s%s\n' "$dim" "$*" "$plain"; }
indent() { sed 's/^/   /'; }
fail() {
	[ -z "$live" ] || printf '\r\033[K'
	printf '%sfailed: %s%s\n' "$red" "$1" "$plain" >&2
	[ ! -s "${dir:-}/tpded.log" ] || { echo 'the last lines of the daemon:' >&2; tail -n 5 "$dir/tpded.log" >&2; }
	exit 1
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/tpded-demo.XXXXXX") || exit 1
daemon=
cleanup() {
	[ -z "$daemon" ] || { kill -9 "$daemon" 2>/dev/null; wait "$daemon" 2>/dev/null; }
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
store=$dir/store watched=$dir/output
unset TPDED_STORE
ctl() { "$build/tpdectl" --config "$dir/tpded.conf" "$@"; }
shown() { show "tpdectl $*"; ctl "$@" 2>&1 | sed "s#$dir/##g" | indent; [ "${PIPESTATUS[0]}" -eq 0 ] || fail "tpdectl $*"; }
alive() { kill -0 "$daemon" 2>/dev/null || fail 'the daemon ended'; }
now() { date +%s%N; }

printf '%stpded%s keeps the checkpoints of a training run as bit-exact deltas; here on a\n' "$bold" "$plain"
printf 'real one, six checkpoints of a small language model with AdamW state, %s,\nin %s.\n' \
	"$(find $recorded -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.2f MB", sum / 1e6 }')" "$recorded"

step 'Start tpded; it watches the directory that the training will write to'
mkdir "$watched" || fail 'no directory'
cat >"$dir/tpded.conf" <<EOF
[store]
path = $store
[daemon]
control_socket = $dir/control.sock
scan_interval = 1
[watch:demo]
path = $watched
settle = 0.3
EOF
show 'cat tpded.conf'; sed "s#$dir/#/.../#" "$dir/tpded.conf" | indent
show 'tpded --config tpded.conf &'
"$build/tpded" --config "$dir/tpded.conf" >"$dir/tpded.log" 2>&1 &
daemon=$!
for ((i = 0; ; i++)); do
	alive
	ctl --json status 2>/dev/null | grep -q '"state":"idle"' && break
	[ $i -lt 100 ] || fail 'the daemon does not answer'
	sleep 0.1
done

step 'Train: checkpoints are written in place, trainer_state.json last'
# Field $2 of the checkpoint of step $1, out of the list's JSON; nothing while it is not stored
field() { ctl --json list demo 2>/dev/null | tr '{' '\n' | sed -n "s/.*\"step\":$1,.*\"$2\":\([0-9]*\).*/\1/p"; }
# In pieces of 64 kB, as a slow disk would get it
write_file() {
	local from=$1 to=$2 size at
	size=$(stat -c %s "$from")
	: >"$to" || return 1
	[ "$(basename "$to")" != model.safetensors ] || chmod 600 "$to"
	for ((at = 0; at < size; at += 65536)); do
		dd if="$from" of="$to" bs=65536 skip=$((at / 65536)) count=1 oflag=append conv=notrunc status=none || return 1
		[ $((at + 65536)) -ge "$size" ] || sleep 0.02
	done
}
for n in $steps; do
	mkdir "$watched/checkpoint-$n" || fail 'no directory'
	for file in $order; do
		line "checkpoint-$n: writing $file"
		write_file "$recorded/checkpoint-$n/$file" "$watched/checkpoint-$n/$file" || fail "cannot write $file"
	done
	[ "$(ls "$watched/checkpoint-$n" | wc -l)" -eq "$(ls "$recorded/checkpoint-$n" | wc -l)" ] || fail 'not all files of the run are known'
	complete=$(now)
	until [ -n "$(field "$n" stored)" ]; do
		alive
		waited=$((($(now) - complete) / 100000000))
		[ $waited -lt $((patience * 10)) ] || fail "checkpoint-$n is not stored after $patience seconds"
		line "checkpoint-$n: complete, being stored: $((waited / 10)).$((waited % 10)) s"
		sleep 0.1
	done
	done_line "$(awk -v n="$n" -v size="$(field "$n" size)" -v stored="$(field "$n" stored)" -v ns=$(($(now) - complete)) \
		'BEGIN { printf "checkpoint-%-4d %6.1f kB -> %6.1f kB  (%.2fx)  %.1f s after it was complete", n, size / 1e3, stored / 1e3, size / stored, ns / 1e9 }')"
done

step 'Ask what it did'
shown status
echo
shown list demo

step 'The chain and the sparsity of the run, by SQL'
if command -v sqlite3 >/dev/null; then
	query() { show "sqlite3 catalog.sqlite \"$1\""; sqlite3 -readonly -header -column "$store/catalog.sqlite" "$1" | indent; [ "${PIPESTATUS[0]}" -eq 0 ] || fail 'the query'; }
	query 'SELECT step, kind, reference, depth, ratio FROM chain;'
	echo
	query "SELECT step,
        round(100 * avg(sparsity) FILTER (WHERE layer = 0), 1) AS layer_0,
        round(100 * avg(sparsity) FILTER (WHERE layer = 1), 1) AS layer_1
      FROM sparsity_history WHERE file = 'model.safetensors'
        AND normalisation = 'raw' AND threshold = 1e-3 GROUP BY step;"
	echo '   (per cent of the weights that moved by less than 0.001: training slows down)'
else
	shown stats demo
fi

step 'Lose a checkpoint and get it back'
lost=60
for n in $steps; do (cd "$recorded/checkpoint-$n" && sha256sum -- *) >"$dir/recorded-$n.txt"; done
show "rm -r output/checkpoint-$lost"
rm -r "$watched/checkpoint-$lost" || fail 'cannot delete'
show "tpdectl restore demo@$lost --to output/checkpoint-$lost"
ctl restore "demo@$lost" --to "$watched/checkpoint-$lost" | sed "s#$dir/##g" | indent
[ "${PIPESTATUS[0]}" -eq 0 ] || fail 'restore'
show 'sha256sum -c'
(cd "$watched/checkpoint-$lost" && sha256sum -c "$dir/recorded-$lost.txt") 2>&1 | sed "s/OK\$/${green}the same SHA-256${plain}/" | indent
[ "${PIPESTATUS[0]}" -eq 0 ] || fail 'a restored file differs from the original'
for n in $steps; do
	line "restoring demo@$n"
	ctl --quiet restore "demo@$n" --to "$dir/restored/$n" || fail "restore demo@$n"
	(cd "$dir/restored/$n" && sha256sum --quiet -c "$dir/recorded-$n.txt") || fail "demo@$n differs from the original"
	[ "$(ls -A "$dir/restored/$n" | wc -l)" -eq "$(wc -l <"$dir/recorded-$n.txt")" ] || fail "demo@$n has other files"
done
done_line "and so do all files of all six checkpoints, restored elsewhere"

step 'What it saves'
ctl --json list --runs | tr '{' '\n' | sed -n 's/.*"size":\([0-9]*\),"stored":\([0-9]*\).*/\1 \2/p' |
	awk '{ printf "   %.2f MB are kept in %.2f MB: %.1f %% saved, and not a bit lost.\n", $1 / 1e6, $2 / 1e6, 100 * (1 - $2 / $1) }'
echo '   Larger models and later phases of a training save more; see README.md.'

step 'Stop tpded'
kill -TERM "$daemon"
wait "$daemon"
code=$?
daemon=
[ $code -eq 0 ] || fail "the daemon ended with status $code"
[ "$(ctl --json list demo | tr '{' '\n' | grep -c '"step":')" -eq "$(wc -w <<<"$steps")" ] || fail 'what was restored became a new version'
printf '   %sdone%s, in %d seconds; nothing is left of it.\n' "$green" "$plain" $SECONDS

#!/bin/bash
# daemon.sh - tpded as a whole program: what it finds, how, and in which order; what it does not; that all of it comes back.
# BUILD names the directory of the programs. Needs only coreutils (and uses the sqlite3 shell where it is).
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
[ -x "$build/tpded" ] && [ -x "$build/tpdectl" ] || { echo "no programs in $build"; exit 1; }
dir=$(mktemp -d) || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
unset TPDED_STORE NOTIFY_SOCKET JOURNAL_STREAM
failures=0
patience=${PATIENCE:-$([ -n "${SAN:-}" ] && echo 300 || echo 60)} # seconds until something that must happen has not
fail() { echo "daemon: $*"; failures=$((failures + 1)); }
ctl() { "$build/tpdectl" --config "$dir/c.conf" "$@"; }

# configure [LINES]: two watches, one of them for several runs
configure() {
	printf '%s\n' '[store]' "path=$dir/store" '[daemon]' "control_socket=$dir/c.sock" threads=2 scan_interval=1h \
		'[watch:one]' "path=$dir/one" settle=700ms '[watch:many]' "path=$dir/many" settle=700ms "$@" >"$dir/c.conf"
}
start() {
	"$build/tpded" --verbose --config "$dir/c.conf" 2>>"$dir/log" &
	daemon=$!
}
# finish [SIGNAL]: stop the daemon; its exit code must be 0
finish() {
	local code
	kill "-${1:-TERM}" $daemon
	wait $daemon
	code=$?
	daemon=
	[ $code -eq 0 ] || fail "the daemon ended with $code: $(tail -3 "$dir/log")"
}
# until_true COMMAND...: wait for it
until_true() {
	local i
	for ((i = 0; i < patience * 10; i++)); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "in vain: $*: $(tail -5 "$dir/log")"
	return 1
}
stored() { ctl show "$1" >/dev/null 2>&1; }
idle() { ctl --json status | grep -q '"state":"idle"'; }
queue_empty() { ctl --json status | grep -q '"queued":0,"running":0'; }
logged() { grep -qF -- "$1" "$dir/log"; }
count() { ctl list --json | grep -o '"step":' | wc -l; }

# --- fake checkpoints: real in their names, order and structure, random in their bytes ---
# safetensors FILE BYTES: one U8 tensor
safetensors() {
	local header="{\"w\":{\"dtype\":\"U8\",\"shape\":[$2],\"data_offsets\":[0,$2]}}" len
	len=${#header}
	{
		printf "\\x$(printf %02x $((len % 256)))\\x$(printf %02x $((len / 256)))\\0\\0\\0\\0\\0\\0%s" "$header"
		head -c "$2" /dev/urandom
	} >"$1"
}
# trainer DIR [RANKS]: as the HF Trainer writes it: in place, file after file, trainer_state.json last
trainer() {
	local at=$1 rank
	mkdir -p "$at"
	echo '{"model_type":"fake"}' >"$at/config.json"
	safetensors "$at/model.safetensors" 20000
	head -c 500 /dev/urandom >"$at/training_args.bin"
	head -c 40000 /dev/urandom >"$at/optimizer.pt"
	head -c 300 /dev/urandom >"$at/scheduler.pt"
	if [ $# -gt 1 ]; then
		for rank in $2; do head -c 200 /dev/urandom >"$at/rng_state_$rank.pth"; done
	else
		head -c 200 /dev/urandom >"$at/rng_state.pth"
	fi
	printf '{"global_step": %d, "log_history": [{"loss": NaN}, {"eval_loss": %d.5, "step": %d}]}' "${at##*-}" "${at##*-}" "${at##*-}" >"$at/trainer_state.json"
}
# same RUN@STEP PATH: does what was stored equal it, names, bytes, modes and times?
same() {
	rm -rf "$dir/out"
	ctl --quiet restore "$1" --to "$dir/out" || { fail "cannot restore $1"; return; }
	if [ -d "$2" ]; then
		[ "$(cd "$dir/out" && find . -type f -printf '%P %m %s %T@\n' | sort)" = \
			"$(cd "$2" && find . -type f -printf '%P %m %s %T@\n' | sort)" ] || fail "$1: other names, modes or times"
		diff -r "$dir/out" "$2" || fail "$1 differs from $2"
	else
		cmp "$dir/out/$(basename "$2")" "$2" || fail "$1 differs from $2"
	fi
}

# --- the command line ---
expect() { # expect CODE TEXT ARGUMENTS...
	local wanted=$1 text=$2 got
	shift 2
	"$build/tpded" "$@" >"$dir/out.txt" 2>&1
	got=$?
	[ $got -eq "$wanted" ] || fail "exit code $got instead of $wanted: $*: $(cat "$dir/out.txt")"
	grep -qF -- "$text" "$dir/out.txt" || fail "no '$text': $*: $(cat "$dir/out.txt")"
	[ "$wanted" -eq 0 ] || [ "$(wc -l <"$dir/out.txt")" -le 2 ] || fail "too many words: $(cat "$dir/out.txt")"
}
mkdir "$dir/one" "$dir/many"
configure
expect 0 'usage: tpded' --help
expect 0 'tpded ' --version
expect 0 "c.conf: OK" --check-config --config "$dir/c.conf"
expect 2 '--bogus' --bogus
expect 2 "'stray' is no option" stray
expect 2 "there is no '$dir/absent'" --config "$dir/absent"
configure 'colour=red'
expect 2 "c.conf:13: [watch:many] colour: unknown key" --config "$dir/c.conf"
configure '[watch:gone]' "path=$dir/gone"
expect 2 "c.conf:14: [watch:gone] path: directory '$dir/gone': No such file or directory" --config "$dir/c.conf"
printf '[store]\npath=%s/a/b/store\n' "$dir" >"$dir/c.conf"
expect 2 "c.conf:2: [store] path: directory '$dir/a/b': No such file or directory" --config "$dir/c.conf"
mkdir "$dir/foreign"
touch "$dir/foreign/file"
printf '[store]\npath=%s/foreign\n[daemon]\ncontrol_socket=%s/c.sock\n' "$dir" "$dir" >"$dir/c.conf"
"$build/tpded" --config "$dir/c.conf" 2>"$dir/out.txt" && fail 'a foreign directory was taken as the store'
grep -q "$dir/foreign" "$dir/out.txt" || fail "no name in: $(cat "$dir/out.txt")"

# --- present at start, in any order: lower steps first ---
configure
trainer "$dir/one/checkpoint-40"
trainer "$dir/one/checkpoint-5"
trainer "$dir/one/checkpoint-100"
start
for step in 5 40 100; do until_true stored one@$step; done
until_true idle
[ "$(grep -o 'stored one@[0-9]*' "$dir/log" | tr '\n' ' ')" = 'stored one@5 stored one@40 stored one@100 ' ] ||
	fail "not in the order of steps: $(grep 'stored' "$dir/log")"
for step in 5 40 100; do same one@$step "$dir/one/checkpoint-$step"; done
ctl show one@100 | grep -q 'one@40' || fail 'the reference of 100 is not 40'
expect 6 'another tpded already serves store' --config "$dir/c.conf"

# --- as it is written, and rotated away as soon as the next one is complete ---
trainer "$dir/one/checkpoint-120"
cp -a "$dir/one/checkpoint-120" "$dir/keep-120"
mkdir "$dir/one/checkpoint-140.tmp" # a neighbour's half-made name
trainer "$dir/one/checkpoint-140"
rm -rf "$dir/one/checkpoint-120" "$dir/one/checkpoint-5"
until_true stored one@120 && same one@120 "$dir/keep-120"
until_true stored one@140 && same one@140 "$dir/one/checkpoint-140"
# what the trainer told of them, the ones that rotation deleted among them
ctl show one@best:eval_loss | grep -qx 'one@5~1' || fail "the best of one: $(ctl show one@best:eval_loss 2>&1 | head -n 1)"
ctl show one@max:eval_loss | grep -qx 'one@140~1' || fail "the worst of one: $(ctl show one@max:eval_loss 2>&1 | head -n 1)"
ctl show one@best:loss 2>&1 | grep -qF "has no metric 'loss'; it has eval_loss" || fail "NaN is a metric: $(ctl show one@best:loss 2>&1 | head -n 1)"
# something in a directory that looks leave out, newer than all else
trainer "$dir/one/checkpoint-150"
mkdir "$dir/one/checkpoint-150/.cache"
sleep 0.05
echo x >"$dir/one/checkpoint-150/.cache/x.metadata"
until_true stored one@150 && same one@150 "$dir/one/checkpoint-150"
# arrives by rename
trainer "$dir/tmp-checkpoint-160"
mv "$dir/tmp-checkpoint-160" "$dir/one/checkpoint-160"
until_true stored one@160
# out of order
trainer "$dir/one/checkpoint-130"
until_true stored one@130 && same one@130 "$dir/one/checkpoint-130"

# --- several ranks: as many as the checkpoint before ---
trainer "$dir/many/ddp/checkpoint-10" '0 1 2'
until_true stored many/ddp@10
trainer "$dir/many/ddp/checkpoint-20" '0 1'
sleep 0.3
stored many/ddp@20 && fail 'taken without its third rank'
head -c 200 /dev/urandom >"$dir/many/ddp/checkpoint-20/rng_state_2.pth"
until_true stored many/ddp@20 && same many/ddp@20 "$dir/many/ddp/checkpoint-20"
[ "$(ctl list many/ddp --json | grep -o '"step":' | wc -l)" -eq 2 ] || fail "a version too many: $(ctl list many/ddp)"

# --- without markers: by settling; a file that grows is not taken ---
mkdir "$dir/many/lit"
head -c 30000 /dev/urandom >"$dir/many/lit/epoch=0-step=7.ckpt"
head -c 30000 /dev/urandom >"$dir/many/lit/last.ckpt"
(for i in 1 2 3 4 5 6; do head -c 10000 /dev/urandom; sleep 0.4; done) >"$dir/many/lit/step-8.pt"
mkdir -p "$dir/many/a/b/step-3/shards"
head -c 5000 /dev/urandom >"$dir/many/a/b/step-3/shards/0.bin"
ln -s 0.bin "$dir/many/a/b/step-3/shards/link"
until_true stored many/lit@7 && same many/lit@7 "$dir/many/lit/epoch=0-step=7.ckpt"
until_true stored many/lit@8 && same many/lit@8 "$dir/many/lit/step-8.pt"
until_true stored many/a/b@3 && same many/a/b@3 "$dir/many/a/b/step-3"
[ "$(ctl list many/lit --json | grep -o '"step":' | wc -l)" -eq 2 ] || fail "not two: $(ctl list many/lit)"
until_true logged "last.ckpt' is not stored"
# a zip without its end is not whole, however long it rests
printf 'PK\003\004 and no end' >"$dir/many/lit/step-9.pt"
sleep 2
stored many/lit@9 && fail 'half a zip was stored'
rm "$dir/many/lit/step-9.pt"

# --- re-written: a new version; touched: none ---
cp -a "$dir/one/checkpoint-160" "$dir/keep-160"
trainer "$dir/one/checkpoint-160"
until_true stored one@160~2 && same one@160~2 "$dir/one/checkpoint-160" && same one@160~1 "$dir/keep-160"
before=$(count)
touch "$dir"/one/checkpoint-140/*
until_true logged 'one@140~1 was stored already'
[ "$(count)" -eq "$before" ] || fail 'equal content became a version'
# what was restored into a watched directory is known, too
rm -rf "$dir/one/checkpoint-40"
ctl --quiet restore one@40 --to "$dir/one/checkpoint-40" || fail 'cannot restore beside the daemon'
sleep 2
until_true idle
[ "$(count)" -eq "$before" ] || fail 'a restored checkpoint became a version'

# --- the queue survives; what is known is not read again ---
finish
lines=$(wc -l <"$dir/log")
trainer "$dir/one/checkpoint-200"
start
until_true stored one@200
until_true idle
[ "$(tail -n +$((lines + 1)) "$dir/log" | grep -c 'stored ')" -eq 1 ] ||
	fail "more than one was stored after a restart: $(tail -n +$((lines + 1)) "$dir/log")"
kill -9 $daemon
wait $daemon 2>/dev/null
trainer "$dir/one/checkpoint-220"
start
until_true stored one@220
until_true idle
# the configuration, read again
mkdir "$dir/third"
trainer "$dir/third/checkpoint-1"
configure '[watch:third]' "path=$dir/third"
kill -HUP $daemon
until_true stored third@1
finish INT
[ -e "$dir/c.sock" ] && fail 'the socket is still there'

# --- the same directory under a new name: what is there is stored under that, too; and under the old one it is still known ---
sed -i 's/^\[watch:one\]/[watch:uno]/' "$dir/c.conf"
start
for step in 140 220; do until_true stored uno@$step && same uno@$step "$dir/one/checkpoint-$step"; done
sed -i 's/^\[watch:third\]/[watch:fourth]/' "$dir/c.conf"
kill -HUP $daemon
until_true stored fourth@1 && same fourth@1 "$dir/third/checkpoint-1"
until_true idle
before=$(count)
configure '[watch:third]' "path=$dir/third"
kill -HUP $daemon
trainer "$dir/third/checkpoint-2"
until_true stored third@2
until_true idle
[ "$(count)" -eq $((before + 1)) ] || fail "what was known under the old name was stored again: $(ctl list)"
finish

# --- a catalog that cannot be written: what was captured is held through rotation, and stored in the end ---
if command -v sqlite3 >/dev/null; then
	start
	until_true idle
	mkfifo "$dir/sql"
	sqlite3 "$dir/store/catalog.sqlite" <"$dir/sql" >/dev/null 2>"$dir/sql.err" &
	sql=$!
	exec 3>"$dir/sql"
	echo 'BEGIN EXCLUSIVE;' >&3
	sleep 0.5
	trainer "$dir/one/checkpoint-240"
	cp -a "$dir/one/checkpoint-240" "$dir/keep-240"
	until_true logged 'one@240 is held and not yet queued'
	rm -rf "$dir/one/checkpoint-240"
	echo 'ROLLBACK;' >&3
	exec 3>&-
	wait $sql
	until_true stored one@240 && same one@240 "$dir/keep-240"
	finish
fi

# --- a lost catalog is made again at the start ---
total=$(count)
rm "$dir/store/catalog.sqlite"
start
until_true idle
[ "$(count)" -eq "$total" ] || fail 'not all is in the new catalog'
finish
if command -v sqlite3 >/dev/null; then
	[ "$(sqlite3 "$dir/store/catalog.sqlite" "SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'missed')")" = 0 ] ||
		fail "jobs are left: $(sqlite3 "$dir/store/catalog.sqlite" 'SELECT * FROM jobs')"
fi

# --- a store that was lost, beside a catalog that was not: what is still there is stored again ---
configure
sed -i "s|^path=$dir/store|&\ncatalog=$dir/kept.sqlite|" "$dir/c.conf"
rm -f "$dir/kept.sqlite"
cp "$dir/store/catalog.sqlite" "$dir/kept.sqlite"
mv "$dir/store" "$dir/lost"
start
until_true stored one@200
until_true idle
for step in 140 200; do same one@$step "$dir/one/checkpoint-$step"; done
finish
rm -rf "$dir/store" "$dir/kept.sqlite"
mv "$dir/lost" "$dir/store"

# --- nothing in a watched directory was touched, and the store is whole ---
[ -z "$(find "$dir/one" "$dir/many" "$dir/third" -name '*tpd*')" ] || fail 'something of ours lies in a watched directory'
ctl --quiet verify >"$dir/out.txt" || fail "verify: $(tail -3 "$dir/out.txt")"
grep -i 'error' "$dir/log" | grep -v -e 'already serves' -e 'not yet queued' && fail 'errors in the log'

[ "$failures" -eq 0 ] && echo "daemon: $(count) checkpoints found, stored and restored"
[ "$failures" -eq 0 ]

#!/bin/bash
# tpdectl.sh - tpdectl as a whole program: what it prints, what it refuses, its exit codes, what it leaves behind.
# (demo_run.sh has the round trips.) Needs no daemon; BUILD names the directory of the programs.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
[ -x "$build/tpdectl" ] || { echo "no $build/tpdectl"; exit 1; }
run=$PWD/tools/demo/run
dir=$(mktemp -d) || exit 1
trap 'kill -9 $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
chmod 755 "$dir"
cp "$build/tpdectl" "$dir/tpdectl" || exit 1 # where another user may reach it
unset TPDED_STORE
failures=0
ctl() { "$dir/tpdectl" "$@" >"$dir/out" 2>"$dir/err"; }
fail() { echo "tpdectl: $*"; failures=$((failures + 1)); }
skip() { echo "tpdectl: skipped: $*"; }

# expect CODE ARGUMENTS...: run it; its output is in $dir/out and $dir/err
expect() {
	local wanted=$1 got
	shift
	ctl "$@"
	got=$?
	[ $got -eq "$wanted" ] || fail "exit code $got instead of $wanted: $*: $(head -c 600 "$dir/err" "$dir/out")"
}
says() { grep -qF -- "$1" "$dir/out" || fail "the output lacks '$1': $(head -c 600 "$dir/out")"; }
# complains TEXT: one line on standard error (a usage line may follow), with this text in it
complains() {
	grep -qF -- "$1" "$dir/err" || fail "the error lacks '$1': $(head -c 600 "$dir/err")"
	[ "$(grep -cv '^usage:' "$dir/err")" -eq 1 ] || fail "not one line: $(head -c 600 "$dir/err")"
}
silent() { [ ! -s "$dir/err" ] || fail "unexpected words on standard error: $(head -c 600 "$dir/err")"; }
is_json() {
	command -v sqlite3 >/dev/null || return 0
	[ "$(sqlite3 :memory: "SELECT json_valid(CAST(readfile('$1') AS TEXT))")" = 1 ] || fail "not JSON: $(head -c 300 "$1")"
	[ "$(wc -l <"$1")" -eq 1 ] || fail "JSON on more than one line: $(head -c 300 "$1")"
}
empty() { [ -z "$(find "$1" ! -type d 2>/dev/null)" ] || fail "left behind: $(find "$1" ! -type d)"; }
# A file of random bytes that takes a while, for what is interrupted.
big() { mkdir -p "$dir/big" && head -c "$1" /dev/urandom >"$dir/big/step-1.bin"; }

store=$dir/store
base=(--store "$store")
expect 4 --store "$dir/no/such/place" ingest "$run/checkpoint-20" --run demo; complains "'$dir/no/such/'"; [ ! -e "$dir/no" ] || fail 'a mistake became a store'
expect 0 "${base[@]}" ingest "$run/checkpoint-20" --run demo
says 'demo@20~1'
grep -q 'made a new store' "$dir/err" || fail 'a new store without a word'
expect 0 "${base[@]}" stats demo; says 'No checkpoint of this run'
for step in 40 60; do expect 0 "${base[@]}" ingest "$run/checkpoint-$step" --run demo; silent; done

# --- names ---
expect 0 "${base[@]}" show demo@latest; says 'demo@60~1'
expect 0 "${base[@]}" show demo@40~1; says 'demo@20, depth 1'
id=$(sed -n 's/^  id *//p' "$dir/out")
expect 0 "${base[@]}" show "${id:0:8}"; says "$id"
expect 4 "${base[@]}" show demo@30; complains "run 'demo' has no checkpoint '30'; it has 20, 40, 60"
expect 4 "${base[@]}" show demo@40~2; complains '40~2'
expect 4 "${base[@]}" show other@20; complains "no run 'other'"
expect 4 "${base[@]}" show 0123456789; complains '0123456789'
expect 2 "${base[@]}" show demo; complains 'RUN@STEP'
expect 2 "${base[@]}" show demo@x; complains 'RUN@STEP'
expect 2 "${base[@]}" show ../x@1; complains 'RUN@STEP'

# --- metrics ---
cp -a "$run/checkpoint-60" "$dir/checkpoint-70"
printf '{"global_step": 70, "log_history": [{"step": 70, "eval_loss": 4.25, "eval_runtime": 3, "evil\\u001b[31m": 1, "eval_\\u202etext": 2}, %s]}' \
	'{"step": 70, "recall@10": 0.5, "eval_bleu": NaN}' >"$dir/checkpoint-70/trainer_state.json"
expect 0 "${base[@]}" ingest "$dir/checkpoint-70" --run demo
expect 0 "${base[@]}" show demo@best:loss; says 'demo@60~1'; says '  metrics    grad_norm '; says '             loss 5.56157'
expect 0 "${base[@]}" show demo@max:loss; says 'demo@20~1'
expect 0 "${base[@]}" show demo@best:recall@10; says 'demo@70~1'; says '  metrics    eval_loss 4.25'; says 'recall@10 0.5'
! grep -q 'evil\|runtime\|bleu\|'$'\u202e' "$dir/out" || fail "what is no metric is one, or its name is raw: $(cat -v "$dir/out")"
expect 0 "${base[@]}" show demo@best:loss --json; is_json "$dir/out"; says '"metrics":{"grad_norm":0.505'; says '"loss":5.56'
expect 4 "${base[@]}" show demo@best:eval; complains "run 'demo' has no metric 'eval'; it has eval_loss, eval_"
expect 4 "${base[@]}" restore demo@best:accuracy --to "$dir/none"; complains "no metric 'accuracy'"
expect 2 "${base[@]}" show demo@best:; complains 'RUN@best:METRIC'
expect 0 "${base[@]}" list demo@best:loss; says 'demo@60'; ! grep -q 'demo@40 .*kB' "$dir/out" || fail 'list of the best lists more'
expect 0 "${base[@]}" verify demo@min:loss; says 'demo@60'
expect 0 "${base[@]}" restore demo@best:loss --to "$dir/best"; diff -r "$run/checkpoint-60" "$dir/best" >/dev/null || fail 'the best is not what it was'
expect 0 "${base[@]}" list --metric loss; says ' loss  REFERENCE'; says ' 5.87586  demo@20'
expect 4 "${base[@]}" list --metric los; complains "no checkpoint here has a metric 'los'"
expect 2 "${base[@]}" list --runs --metric loss; complains '--runs'
expect 0 "${base[@]}" list --json; is_json "$dir/out"; says '"metrics":{"eval_loss":4.25,'
offered() { # WORDS...: what is offered for the last
	(COMP_WORDS=(tpdectl --store "$store" "$@"); COMP_CWORD=$(($# + 2)); PATH=$dir:$PATH; . tools/completion/tpdectl.bash
		_tpdectl; echo "${COMPREPLY[*]}")
}
[ "$(offered show demo@best : lo)" = loss ] || fail "completion of a metric: $(offered show demo@best : lo)"
[ "$(offered show demo@min :)" = "$(offered list --metric '')" ] || fail "completion of all metrics: $(offered show demo@min :)"
[ "$(offered restore demo@max:recall@1)" = demo@max:recall@10 ] || fail "completion in one word: $(offered restore demo@max:recall@1)"
[[ " $(offered show '') " == *' demo@40 '* ]] || fail "completion of names: $(offered show '')"
[ "$(offered help re)" = "$(offered re)" ] || fail "completion of help: $(offered help re)"
[ "$(offered ingest x --effort '')" = 'fast balanced max' ] || fail "completion of an effort: $(offered ingest x --effort '')"
[ "$(offered ingest x --depend o)" = optimizer ] || fail "completion of what may be depended on: $(offered ingest x --depend o)"
[ -z "$(offered help show '')" ] || fail "completion of help for a command: $(offered help show '')"
if command -v sqlite3 >/dev/null; then # the same from the store alone
	sqlite3 "$store/catalog.sqlite" .dump >"$dir/before.sql"
	grep -q "INSERT INTO metrics VALUES(.*'eval_loss',4.25)" "$dir/before.sql" || fail 'no metrics in the catalog'
	expect 0 "${base[@]}" rebuild-catalog
	sqlite3 "$store/catalog.sqlite" .dump | diff "$dir/before.sql" - >"$dir/diff" || fail "rebuilt with other metrics: $(head -n 3 "$dir/diff")"
fi
rm -rf "$dir/best" "$store"
for step in 20 40 60; do expect 0 "${base[@]}" ingest "$run/checkpoint-$step" --run demo; done

# --- list, show, stats, status ---
expect 0 "${base[@]}" list
says 'keyframe'; says '3 checkpoints'
[ "$(grep -c '^demo@' "$dir/out")" -eq 3 ] || fail "list: not three rows: $(cat "$dir/out")"
expect 0 "${base[@]}" list demo --json; is_json "$dir/out"
for key in name run step version id created kind size stored depth reference; do says "\"$key\":"; done
says '"reference":"demo@20~1"'
expect 0 list --runs --json "${base[@]}"; is_json "$dir/out"; says '"checkpoints":3'
expect 0 "${base[@]}" list --runs; says 'demo'
expect 4 "${base[@]}" list nothing; complains "no run 'nothing'"
mkdir "$dir/hollow-1" # no checkpoint: neither a run nor a store is made for it
expect 2 "${base[@]}" ingest "$dir/hollow-1" --run hollow; complains 'holds no regular file'; [ ! -e "$store/refs/hollow" ] || fail 'a run was made for nothing'
expect 4 "${base[@]}" list nothing; ! grep -q hollow "$dir/err" || fail 'a run without a checkpoint is offered'
expect 4 "${base[@]}" list hollow; complains "no run 'hollow'"
expect 2 --store "$dir/unmade" ingest "$dir/hollow-1" --run hollow; complains 'holds no regular file'; [ ! -e "$dir/unmade" ] || fail 'a store was made for nothing'
expect 4 "${base[@]}" --json list nothing; is_json "$dir/err"; grep -q '"status":"not-found"' "$dir/err" || fail 'JSON error without status'
expect 0 "${base[@]}" show demo@40 --tensors
says 'model.layers.0.mlp.up_proj.weight'
grep -Eq '^F32 +\[96,32\] .* [0-9]+\.[0-9]{2} +[a-z-]+ +[a-z-]+ x[0-9]+\.[0-9]{2} +before' "$dir/out" || fail 'show: no bits, no reason, no reference'
grep -E '^[0-9a-f]{64}  ' "$dir/out" >"$dir/sums"
(cd "$run/checkpoint-40" && sha256sum --quiet -c "$dir/sums") || fail 'show: digests are not those of the files'
expect 0 "${base[@]}" show demo@40 --tensors --json; is_json "$dir/out"; says '"dtype":"F32","shape":[96,32]'; says '"next_best":{"encoding":"'
expect 0 "${base[@]}" stats demo; says 'ulps'
[ "$(awk 'length > 80' "$dir/out" | wc -l)" -eq 0 ] || fail "stats: wider than 80 columns: $(cat "$dir/out")"
expect 0 "${base[@]}" stats demo --json; is_json "$dir/out"; says '"w1_step":20'
expect 4 "${base[@]}" stats nothing; complains "no run 'nothing'"
expect 0 "${base[@]}" status --socket "$dir/nobody"; says 'not running'; says '3 checkpoints'
expect 0 "${base[@]}" status --socket "$dir/nobody" --json; is_json "$dir/out"; says '"daemon":null'

# --- ingest: equal content, versions, steps, single files ---
expect 0 "${base[@]}" ingest "$run/checkpoint-40" --run demo; says 'demo@40~1  is already stored'
cp -a "$run/checkpoint-40" "$dir/changed"
echo >>"$dir/changed/config.json"
expect 0 "${base[@]}" ingest "$dir/changed" --run demo --json; is_json "$dir/out"; says '"name":"demo@40~2"'; says '"existed":false'
expect 0 "${base[@]}" restore demo@40~1 --to "$dir/v1"; diff -r "$run/checkpoint-40" "$dir/v1" >/dev/null || fail 'version 1 differs'
expect 0 "${base[@]}" restore demo@40 --to "$dir/v2"; diff -r "$dir/changed" "$dir/v2" >/dev/null || fail 'version 2 differs'
expect 0 "${base[@]}" list demo; says 'demo@40~1'; says 'demo@40~2'
head -c 5000 /dev/urandom >"$dir/weights-step=7.ckpt"
(cd "$dir" && ctl "${base[@]}" ingest ./weights-step=7.ckpt --run files) || fail "a single file: $(cat "$dir/err")"
says 'files@7~1'
mkdir "$dir/cut"; head -c 1000 "$run/checkpoint-60/model.safetensors" >"$dir/cut/model.safetensors"; : >"$dir/cut/optimizer.pt"; : >"$dir/cut/DONE"
expect 0 "${base[@]}" ingest "$dir/cut" --run cut --step 1; complains "'model.safetensors' is not whole, and other files are not"
expect 0 "${base[@]}" ingest "$dir/cut" --run cut --step 2 --json; says '"cut":["model.safetensors","optimizer.pt"]'
cp -r "$run/checkpoint-60" "$dir/less"; rm "$dir/less/optimizer.pt"
expect 0 "${base[@]}" ingest "$run/checkpoint-40" --run lacks; expect 0 "${base[@]}" ingest "$dir/less" --run lacks --step 60; complains "it has no 'optimizer.pt', as lacks@40 has"
expect 0 "${base[@]}" ingest "$dir/less" --run lacks --step 61 --json; says '"lacks":null'
expect 0 "${base[@]}" restore files@7 --to "$dir/single"; cmp -s "$dir/weights-step=7.ckpt" "$dir/single/weights-step=7.ckpt" || fail 'single file differs'
cp "$dir/weights-step=7.ckpt" "$dir/epoch=1-step=20-v1.ckpt" # the daemon's rule, not the last number
expect 0 "${base[@]}" ingest "$dir/epoch=1-step=20-v1.ckpt" --run named; says 'named@20~1'
head -c 100 /dev/urandom >"$dir/last.ckpt"
expect 2 "${base[@]}" ingest "$dir/last.ckpt" --run files; complains '--step N'
expect 0 "${base[@]}" ingest "$dir/last.ckpt" --run files --step 8; says 'files@8~1'
mkdir "$dir/best-7"; echo '{"global_step": 20, "best_metric": NaN}' >"$dir/best-7/trainer_state.json"
expect 0 "${base[@]}" ingest "$dir/best-7" --run best; says 'best@20~1'
echo '{"global_step": 2' >"$dir/best-7/trainer_state.json"
expect 2 "${base[@]}" ingest "$dir/best-7" --run best; complains 'trainer_state.json'; complains '--step N'
expect 0 "${base[@]}" ingest "$dir/best-7" --run best --step 21; says 'best@21~1'
expect 2 "${base[@]}" ingest "$dir/last.ckpt" --run 'a@b'; complains '--run'
expect 2 "${base[@]}" ingest "$dir/last.ckpt"; complains '--run NAME'
expect 4 "${base[@]}" ingest "$dir/nowhere-1" --run files; complains 'nowhere-1'
expect 2 "${base[@]}" ingest /dev/null --run files --step 1; complains '/dev/null'
mkdir "$dir/odd-3"
ln -s /etc/passwd "$dir/odd-3/link"; : >"$dir/odd-3/empty"; mkdir "$dir/odd-3/sub"; mkfifo "$dir/odd-3/fifo"
printf x >"$dir/odd-3/$(printf 'bad\033[31m\nname')"
printf y >"$dir/odd-3/größe 模型.bin"
expect 0 "${base[@]}" ingest "$dir/odd-3" --run odd
expect 0 "${base[@]}" show odd@3; says 'größe 模型.bin'; says 'link -> /etc/passwd'; says 'sub/'
! grep -q $'\033' "$dir/out" || fail 'a name from the store reaches the terminal raw'
expect 0 "${base[@]}" show odd@3 --json; is_json "$dir/out"
expect 0 "${base[@]}" restore odd@3 --to "$dir/odd"
rm "$dir/odd-3/fifo"
diff -r --no-dereference "$dir/odd-3" "$dir/odd" >"$dir/out" || fail "odd names differ: $(cat -v "$dir/out")"

expect 0 "${base[@]}" status --socket "$dir/"$'no\033\377body'; says "no??body"
if [ -x "$build/tpded" ]; then # the log: neither raw bytes of a name nor what commands a terminal
	"$build/tpded" --config "$dir/"$'no\377\033[31m\nfile' >"$dir/out" 2>"$dir/err" && fail 'tpded takes a configuration that is not there'
	complains 'no??[31m?file'
fi

# --- restore: what is there stays, unless --force ---
mkdir "$dir/there"; echo mine >"$dir/there/config.json"
expect 1 "${base[@]}" restore demo@60 --to "$dir/there"; complains 'config.json'; complains '--force'
[ "$(cat "$dir/there/config.json")" = mine ] && [ "$(find "$dir/there" -type f | wc -l)" -eq 1 ] || fail 'a refused restore wrote something'
expect 0 "${base[@]}" restore demo@60 --to "$dir/there" --force; diff -r "$run/checkpoint-60" "$dir/there" >/dev/null || fail '--force: differs'
expect 0 "${base[@]}" restore demo@60 --to "$dir/one" --file model.safetensors --json; is_json "$dir/out"; says '"files":1'
[ "$(ls -A "$dir/one")" = model.safetensors ] || fail "--file: not one file: $(ls -A "$dir/one")"
expect 2 "${base[@]}" restore demo@60 --to "$store/objects/x"; complains 'lies in the store'
expect 4 "${base[@]}" restore demo@60 --to "$dir/none" --file nothing; complains "holds no 'nothing'"
expect 4 "${base[@]}" restore demo@60 --to "$dir/none" --file config.json --file nothing; complains "holds no 'nothing'"
[ ! -e "$dir/none" ] || fail '--file: wrote before it looked for all of them'
expect 0 "${base[@]}" restore demo@60 --to "$dir/two" --file ./config.json --file model.safetensors; says ': 2 files ('; says 'SHA-256 equal'
[ "$(ls -A "$dir/two" | tr '\n' ' ')" = 'config.json model.safetensors ' ] || fail "--file twice: $(ls -A "$dir/two")"
mkdir "$dir/deep-1"; mkdir -p "$dir/deep-1/a/b" "$dir/deep-1/hollow" "$dir/deep-1/ab"; echo 1 >"$dir/deep-1/a/b/one"; echo 2 >"$dir/deep-1/a/two"
echo 3 >"$dir/deep-1/ab/three"; ln -s a/two "$dir/deep-1/link"
expect 0 "${base[@]}" ingest "$dir/deep-1" --run deep
expect 0 "${base[@]}" restore deep@1 --to "$dir/deep" --file a/; says ': 2 files ('
[ "$(cd "$dir/deep" && find . | sort | tr '\n' ' ')" = '. ./a ./a/b ./a/b/one ./a/two ' ] || fail "--file a/: $(find "$dir/deep")"
expect 0 "${base[@]}" restore deep@1 --to "$dir/deep" --file link; says ': 1 link'; ! grep -q 'SHA\|file' "$dir/out" || fail "a link: $(cat "$dir/out")"
expect 0 "${base[@]}" restore deep@1 --to "$dir/deep" --file hollow --json; says '"files":0,"links":0,"directories":1,"size":0'
expect 2 "${base[@]}" restore demo@60; complains '--to DIR'
rm -rf "$dir/there"; mkdir -p "$dir/there/config.json"
expect 1 "${base[@]}" restore demo@60 --to "$dir/there" --force; complains 'is a directory'; empty "$dir/there"
mkdir "$dir/outside" "$dir/trap"; ln -s "$dir/outside" "$dir/trap/sub"
expect 0 "${base[@]}" ingest "$dir/odd" --run odd --step 4
expect 1 "${base[@]}" restore odd@4 --to "$dir/trap" --force
empty "$dir/outside"

# --- usage ---
for line in '' '--foo' 'frobnicate' 'list --tensors' 'list a b' 'show' 'ingest' '--threads 0 list' '--threads x list' '--threads 65 list' \
	'--lock-timeout soon list' 'ingest x --step -1 --run r' '--store' 'list --json=1' '-x' 'restore a@1 --to='; do
	read -ra words <<<"$line"
	expect 2 "${words[@]}"
	grep -q '^usage: tpdectl' "$dir/err" || fail "no usage line after '$line': $(cat "$dir/err")"
	[ ! -s "$dir/out" ] || fail "'$line' wrote to standard output"
done
expect 2 --json nonsense; is_json "$dir/err"
expect 0 --help; silent; says 'rebuild-catalog'
expect 0 restore --help; silent; says '--force'
expect 0 --version; says 'tpdectl '
expect 2 help nonsense; complains "unknown command 'nonsense'"
for command in '' status retry list show ingest restore verify discard stats rebuild-catalog config-check; do
	expect 0 $command --help; says "usage: tpdectl [OPTIONS] ${command:-COMMAND}"
	[ -z "$(awk 'length > 80' "$dir/out")" ] || fail "$command --help is wider than 80 columns"
	cp "$dir/out" "$dir/help"
	expect 0 help $command; cmp -s "$dir/out" "$dir/help" || fail "'help $command' says something else"
done

# --- where the store is ---
TPDED_STORE=$store ctl list demo || fail 'TPDED_STORE is not used'
printf '[store]\npath = %s\ncatalog = %s\nmax_depth = 3\n' "$dir/other" "$dir/elsewhere.sqlite" >"$dir/tpded.conf"
expect 0 --config "$dir/tpded.conf" ingest "$run/checkpoint-20" --run demo
[ -d "$dir/other/objects" ] && [ -f "$dir/elsewhere.sqlite" ] && [ ! -e "$dir/other/catalog.sqlite" ] || fail 'the configured store or catalog is not used'
expect 4 --store "$dir/absent" list; complains "$dir/absent"
[ ! -e "$dir/absent" ] || fail 'list made a store'
mkdir "$dir/foreign"; echo x >"$dir/foreign/file"
expect 4 --store "$dir/foreign" verify; complains "$dir/foreign"
ctl --store "$dir/foreign" ingest "$run/checkpoint-20" --run demo && fail 'a foreign directory became a store'
[ "$(ls -A "$dir/foreign")" = file ] || fail "a foreign directory was written to: $(ls -A "$dir/foreign")"
expect 2 --config "$dir/absent.conf" list; complains 'absent.conf'
expect 2 config-check "$dir/absent.conf"; complains 'absent.conf'
TPDED_STORE=$store ctl --config "$dir/tpded.conf" list --runs --json || fail '--config beside TPDED_STORE'
says '"checkpoints":1,' # that of --config: what is typed wins over the environment
TPDED_STORE=$dir/absent ctl --config "$dir/tpded.conf" --store "$store" list demo || fail '--store does not win'

# --- config-check ---
mkdir "$dir/watched"
printf '[store]\npath = %s\n[watch:demo]\npath = %s\nsettle = 2\n' "$dir/other" "$dir/watched" >"$dir/good.conf"
expect 0 config-check "$dir/good.conf"; says 'OK'; says "$dir/watched"
expect 0 config-check "$dir/good.conf" --json; is_json "$dir/out"
printf '[store]\npath = %s\n[watch:demo]\npath = %s\nspeed = 2\n' "$dir/other" "$dir/watched" >"$dir/bad.conf"
expect 2 config-check "$dir/bad.conf"; complains "$dir/bad.conf:5:"; complains 'speed'
printf '[store]\npath = %s\n[watch:demo]\npath = %s\n' "$dir/other" "$dir/gone" >"$dir/bad.conf"
expect 2 config-check "$dir/bad.conf"; complains "$dir/gone"

# --- damage ---
expect 0 "${base[@]}" verify; says 'verified'
total=$(grep -c '^ok ' "$dir/out")
copy() { rm -rf "$dir/hurt" "$dir/target"; cp -a "$store" "$dir/hurt"; }
object() { echo "$dir"/hurt/objects/??/"$1".0; }
hurt=(--store "$dir/hurt")
damaged() { # after the damage of demo@20, on which the others depend
	expect 5 "${hurt[@]}" verify; says 'CORRUPT  demo@20~1'; says 'ok       files@7~1'
	expect 5 "${hurt[@]}" verify demo@20 --json; is_json "$dir/out"; says '"status":"'
	expect 5 "${hurt[@]}" restore demo@20 --to "$dir/target"; complains 'tpdectl: '; empty "$dir/target"
}
ctl "${base[@]}" show demo@20; first=$(sed -n 's/^  id *//p' "$dir/out")
copy; part=$(find "$(object "$first")" -name 'f*.p*' -size +100k | head -n 1)
truncate -s -1000 "$part"; damaged
copy; truncate -s 100000 "$part"; damaged
copy; printf '\377\376\375' | dd of="$part" bs=1 seek=50000 conv=notrunc status=none; damaged
copy; rm "$part"; damaged
expect 5 "${hurt[@]}" verify demo@20; says 'storing that checkpoint again'
expect 0 "${hurt[@]}" ingest "$run/checkpoint-20" --run demo; says 'demo@20~1  was damaged and is repaired'
expect 2 "${hurt[@]}" restore demo@20 --to -; complains '--to'
expect 0 "${hurt[@]}" verify; ! grep -q again "$dir/out" || fail 'a hint for what is sound'
expect 0 "${hurt[@]}" ingest "$run/checkpoint-20" --run demo --json; says '"existed":true,"repaired":false'
copy; truncate -s -1 "$(object "$first")/manifest"; damaged
expect 0 "${base[@]}" verify; [ "$(grep -c '^ok ' "$dir/out")" -eq "$total" ] || fail 'the copy was damaged, and the original suffered'
copy; flip=$(stat -c %s "$dir/hurt/refs/demo") # one byte in the middle of a run's names; all objects are sound
printf '\252' | dd of="$dir/hurt/refs/demo" bs=1 seek=$((flip / 3)) conv=notrunc status=none
expect 5 "${hurt[@]}" list; complains "run 'demo'"; complains 'rebuild-catalog'; says 'files@7'
expect 5 "${hurt[@]}" list --json; is_json "$dir/out"; is_json "$dir/err"
for line in 'list demo' 'show demo@20' 'restore demo@20 --to target' 'verify demo'; do
	read -ra words <<<"$line"
	expect 5 "${hurt[@]}" "${words[@]}"; complains 'refs/demo'
done
expect 5 "${hurt[@]}" status --socket "$dir/nobody"; says 'checkpoints'; complains "run 'demo'"
expect 5 "${hurt[@]}" verify; complains "run 'demo'"; says 'that no run names'
copy; : >"$dir/hurt/refs/demo" # its end is gone: what is left, here nothing, is sound
for line in list 'list --json' verify 'verify --quiet'; do
	read -ra words <<<"$line"
	expect 5 "${hurt[@]}" "${words[@]}"; complains 'that no run names'
done
expect 0 "${hurt[@]}" restore files@7 --to "$dir/target"; complains 'that no run names'
expect 0 "${hurt[@]}" rebuild-catalog; expect 0 "${hurt[@]}" list; expect 0 "${hurt[@]}" verify demo@latest
rm "$dir/hurt/refs/demo"
expect 5 "${hurt[@]}" list demo; complains 'that no run names'; complains 'rebuild-catalog'
expect 5 "${hurt[@]}" list files; says 'files@7'; expect 4 "${hurt[@]}" list nothing; complains "no run 'nothing'"
expect 0 "${hurt[@]}" rebuild-catalog; says 'the refs of 1 run were lost and are repaired'; ! grep -q refs-damaged "$dir/out" || fail 'nothing was kept'
echo garbage >"$dir/hurt/refs/demo"
expect 5 "${hurt[@]}" list demo; complains 'refs/demo'; complains 'rebuild-catalog'
expect 5 "${hurt[@]}" list; complains 'refs/demo'; complains 'rebuild-catalog'
expect 0 "${hurt[@]}" rebuild-catalog --json; says '"repaired":1'
[ "$(cat "$dir/hurt/refs-damaged/demo@1")" = garbage ] || fail 'the garbage was not kept'
expect 0 "${hurt[@]}" list demo; says 'demo@20'; silent
copy; printf '\252' | dd of="$dir/hurt/refs/demo" bs=1 seek=$((flip / 3)) conv=notrunc status=none
cp "$dir/hurt/refs/demo" "$dir/damaged"
copy2() { rm -rf "$dir/gone"; cp -a "$store" "$dir/gone"; rm -r "$dir"/gone/objects/??/"$first".0; }
copy2; gone=(--store "$dir/gone") # refs name it, and it is not there: corrupt, whoever asks
for line in 'show demo@20' 'list demo' 'list demo --json' "restore demo@20 --to $dir/target" 'verify demo@20' 'rebuild-catalog' 'list demo' 'show demo@20'; do
	read -ra words <<<"$line"
	wanted=5; [ "$line" != rebuild-catalog ] || wanted=3
	expect $wanted "${gone[@]}" "${words[@]}"
done
complains 'demo@20~1'
expect 4 "${gone[@]}" show demo@21
expect 0 "${hurt[@]}" rebuild-catalog --json; is_json "$dir/out"; says "\"checkpoints\":$total"; says '"repaired":1'
cmp -s "$dir/damaged" "$dir/hurt/refs-damaged/demo@1" || fail 'the damaged refs were not kept'
expect 0 "${hurt[@]}" verify; [ "$(grep -c '^ok ' "$dir/out")" -eq "$total" ] || fail 'rebuild-catalog did not bring all names back'
ctl "${base[@]}" list demo --json; cp "$dir/out" "$dir/before"
# Names come from the manifests, metrics from the stored files.
facts() { sed 's/,"created":[0-9]*//g; s/,"stored":[0-9]*//g' "$1"; } # a time more or less in a manifest may be a byte
as_before() { expect 0 "${hurt[@]}" list demo --json; [ "$(facts "$dir/out")" = "$(facts "$dir/before")" ] || fail "$1"; }
as_before 'other names or metrics than before'
printf ZZZZ | dd of="$dir/hurt/refs/demo" bs=1 seek=40 conv=notrunc status=none # the first record of metrics
expect 0 "${hurt[@]}" rebuild-catalog; says 'metrics of 1 checkpoint were lost and are read again from its files'; silent
as_before 'other metrics than before'
rm "$dir/hurt/refs/demo"
expect 0 "${hurt[@]}" rebuild-catalog --json; is_json "$dir/out"; says "\"metrics_recovered\":$(grep -o '"metrics":{"' "$dir/before" | wc -l),\"metrics_lost\":0"
as_before 'other metrics than before, with all refs lost'
expect 0 "${hurt[@]}" show demo@best:loss; says 'demo@60~1'
rm "$dir/hurt/refs/demo" "$(object "$first")/f00006.p00000" # trainer_state.json
expect 0 "${hurt[@]}" rebuild-catalog; complains 'checkpoints may have lost metrics'; complains 'the first: demo@20~1: '
expect 0 "${hurt[@]}" ingest "$run/checkpoint-20" --run demo; says 'was damaged and is repaired'
expect 0 "${hurt[@]}" rebuild-catalog; says 'were lost and are read again from their files'; silent # of those that are deltas to it
as_before 'other metrics than before, when it was stored again'
expect 0 "${hurt[@]}" rebuild-catalog; says "$total checkpoints"; ! grep -q repaired "$dir/out" || fail 'repaired twice'
copy; rm "$dir/hurt/catalog.sqlite"; printf 'not a database, but long enough to look at it twice' >"$dir/hurt/catalog.sqlite"
expect 0 "${hurt[@]}" list demo; says 'demo@20'; complains 'catalog is not used'
expect 0 "${hurt[@]}" status --socket "$dir/nobody"; says 'checkpoints'; complains 'catalog is not used'
expect 0 "${hurt[@]}" stats demo; [ -e "$dir/hurt/catalog.sqlite.damaged" ] || fail 'stats did not put the damaged catalog aside'
complains "warning: the catalog was damaged: it is kept as '$dir/hurt/catalog.sqlite.damaged'"
expect 0 "${hurt[@]}" rebuild-catalog --json; says "\"checkpoints\":$total"
copy; head -c 20000 /dev/urandom | dd of="$dir/hurt/catalog.sqlite" bs=1 seek=8192 conv=notrunc status=none # pages in its middle
expect 0 "${hurt[@]}" list demo; says 'demo@40~2'
expect 0 "${hurt[@]}" rebuild-catalog; says "$total checkpoints"; complains 'catalog.sqlite.damaged'
expect 0 "${hurt[@]}" stats demo; silent
copy; sed -i '1s/1$/9/' "$dir/hurt/format"
for line in 'list' 'verify' 'show demo@20' 'status' 'rebuild-catalog'; do
	read -ra words <<<"$line"
	expect 1 "${hurt[@]}" "${words[@]}"; complains 'version'
done

# --- runs below a name ---
for name in sweep/a sweep/b größe sweeping; do expect 0 "${base[@]}" ingest "$run/checkpoint-20" --run $name; done
expect 0 "${base[@]}" list sweep; says 'sweep/a@20'; says 'sweep/b@20'; ! grep -q sweeping "$dir/out" || fail 'a run that only begins so'
expect 0 "${base[@]}" list sweep --json; says '"run":"sweep/b"'
expect 0 "${base[@]}" verify sweep; says '2 checkpoints verified'
expect 4 "${base[@]}" stats sweep; complains "such as 'sweep/a'"
expect 4 "${base[@]}" show sweep@20
expect 0 "${base[@]}" verify; says 'ok       größe@20~1       758 kB'; says 'ok       sweep/a@20~1     758 kB'
copy; printf '\252' | dd of="$dir/hurt/refs/sweep%2Fb" bs=1 seek=20 conv=notrunc status=none
expect 5 "${hurt[@]}" list sweep; says 'sweep/a@20'; complains "run 'sweep/b'"
expect 5 "${hurt[@]}" verify sweep; says 'sweep/a@20'; complains "run 'sweep/b'"
total=$((total + 4))

# --- catalog: missing, behind, of another version ---
if command -v sqlite3 >/dev/null; then
	copy; sqlite3 "$dir/hurt/catalog.sqlite" 'PRAGMA user_version = 99'
	expect 1 "${hurt[@]}" rebuild-catalog; complains 'has version 99'; complains 'move it away'
	mv "$dir/hurt/catalog.sqlite" "$dir/newer"
	expect 0 "${hurt[@]}" rebuild-catalog; says "$total checkpoints"
fi
copy; rm "$dir/hurt/catalog.sqlite"
expect 0 "${hurt[@]}" list demo; says 'demo@40~2'; says 'keyframe'
[ ! -e "$dir/hurt/catalog.sqlite" ] || fail 'list wrote a catalog'
expect 0 "${hurt[@]}" stats demo; [ -e "$dir/hurt/catalog.sqlite" ] || fail 'stats made no catalog'
rm "$dir/hurt/catalog.sqlite"
expect 0 "${hurt[@]}" rebuild-catalog --json; is_json "$dir/out"; says "\"checkpoints\":$total"

if command -v sqlite3 >/dev/null; then # somebody holds the catalog: what is in the store is stored
	for option in --quiet --json; do
		copy; rm -f "$dir/sql"; mkfifo "$dir/sql"
		sqlite3 "$dir/hurt/catalog.sqlite" <"$dir/sql" >"$dir/held" 2>&1 &
		exec 9>"$dir/sql"; echo "BEGIN IMMEDIATE; SELECT 'held';" >&9
		for ((i = 0; i < 100; i++)); do grep -q held "$dir/held" && break; sleep 0.1; done
		expect 0 "${hurt[@]}" --lock-timeout 0.2 ingest "$run/checkpoint-60" --run late $option
		if [ $option = --json ]; then says 'late@60~1'; elif [ -s "$dir/out" ]; then fail "--quiet, and it speaks: $(cat "$dir/out")"; fi
		if [ $option = --json ]; then silent; says '"recorded":false'; else complains 'not in the catalog yet'; fi
		echo 'ROLLBACK;' >&9; exec 9>&-; wait $!
		expect 0 "${hurt[@]}" ingest "$run/checkpoint-80" --run late --json; says '"recorded":true'
		[ "$(sqlite3 "$dir/hurt/catalog.sqlite" "SELECT count(*) FROM chain WHERE run = 'late'")" -eq 2 ] || fail 'the next ingest did not record what was left out'
	done
fi

if command -v sqlite3 >/dev/null; then # deleted while it is read: it waits for the catalog, with all files open
	for option in --quiet --json; do
		copy; rm -rf "$dir/sql" "$dir/going"; mkfifo "$dir/sql"; cp -r "$run/checkpoint-60" "$dir/going"
		sqlite3 "$dir/hurt/catalog.sqlite" <"$dir/sql" >"$dir/held" 2>&1 &
		exec 9>"$dir/sql"; echo "BEGIN EXCLUSIVE; SELECT 'held';" >&9
		for ((i = 0; i < 100; i++)); do grep -q held "$dir/held" && break; sleep 0.1; done
		"$dir/tpdectl" "${hurt[@]}" --lock-timeout 60 ingest "$dir/going" --run going --step 60 $option >"$dir/out" 2>"$dir/err" &
		reader=$!
		for ((i = 0; i < 100; i++)); do ls -l "/proc/$reader/fd" 2>/dev/null | grep -q going/model.safetensors && break; sleep 0.1; done
		rm "$dir/going/model.safetensors"
		echo 'ROLLBACK;' >&9; exec 9>&-
		wait $reader; got=$?
		wait
		[ $got -eq 3 ] || fail "exit code $got instead of 3 for what was being deleted: $(cat "$dir/err")"
		if [ $option = --json ]; then silent; is_json "$dir/out"; says '"deleted":true'; else complains "'$dir/going' was being deleted while it was read"; fi
		expect 0 "${hurt[@]}" restore going@60 --to "$dir/gone" --file model.safetensors --force --quiet
		cmp "$dir/gone/model.safetensors" "$run/checkpoint-60/model.safetensors" || fail 'what was open is not what was stored'
		expect 0 "${hurt[@]}" ingest "$dir/going" --run going --step 60 --json; says '"deleted":false'
	done
fi

# --- status: what the daemon waits for, and events ---
if [ -x "$build/tpded" ]; then
	copy; mkdir "$dir/waits"
	for ((i = 1; i <= 12; i++)); do
		mkdir "$dir/waits/checkpoint-$i"; cp "$run"/checkpoint-20/{config.json,model.safetensors} "$dir/waits/checkpoint-$i"
	done
	printf '[store]\npath = %s\n[daemon]\ncontrol_socket = %s\n[watch:waits]\npath = %s\ncomplete_when = DONE\n' "$dir/hurt" "$dir/socket" "$dir/waits" >"$dir/waits.conf"
	"$build/tpded" --config "$dir/waits.conf" >"$dir/log" 2>&1 &
	daemon=$!
	for ((i = 0; i < 100; i++)); do
		ctl --config "$dir/waits.conf" status && grep -q '^and 2 more' "$dir/out" && break
		sleep 0.1
	done
	expect 0 --config "$dir/waits.conf" status; says 'WAITS FOR'; says 'DONE'; says 'and 2 more'
	[ "$(grep -c '^waits@' "$dir/out")" -eq 10 ] || fail "not ten rows: $(cat "$dir/out")"
	expect 0 --config "$dir/waits.conf" status --json; is_json "$dir/out"; says '"unfinished":[],'; says '"waits_for":"'
	# Who asks at another socket is told that there is a daemon all the same.
	expect 0 "${hurt[@]}" status --socket "$dir/nobody"; says "a tpded has this store, but does not listen at '$dir/nobody'"
	expect 0 "${hurt[@]}" status --socket "$dir/nobody" --json; is_json "$dir/out"; says '"served":true,"daemon":null'
	expect 0 "${base[@]}" status --socket "$dir/socket"; says 'but it serves another store'
	if grep -q 'at another socket' "$dir/out"; then fail "a store without a daemon has one: $(cat "$dir/out")"; fi
	mv "$dir/waits" "$dir/moved"
	for ((i = 0; i < 100; i++)); do ctl --config "$dir/waits.conf" status && grep -q 'missing since' "$dir/out" && break; sleep 0.1; done
	says 'missing since 20'; says 'taken up again by itself'
	mv "$dir/moved" "$dir/waits"
	kill $daemon; wait $daemon
	expect 0 "${hurt[@]}" status --socket "$dir/nobody"; says 'not running'
	expect 0 "${hurt[@]}" status --socket "$dir/nobody" --json; says '"served":false,"daemon":null'
	# A job that fails: why, and when it is tried again; at once, when somebody asks for it.
	mkdir "$dir/fails"
	printf '[store]\npath = %s\n[daemon]\ncontrol_socket = %s\n[watch:fails]\npath = %s\n' "$dir/hurt" "$dir/socket" "$dir/fails" >"$dir/fails.conf"
	expect 4 --config "$dir/fails.conf" retry; complains "$dir/socket"
	"$build/tpded" --config "$dir/fails.conf" >"$dir/log" 2>&1 &
	daemon=$!
	for ((i = 0; i < 100; i++)); do ctl --config "$dir/fails.conf" status && grep -q '^daemon *idle' "$dir/out" && break; sleep 0.1; done
	expect 0 --config "$dir/fails.conf" retry; says 'nothing waits for another try'
	mkdir "$dir/hurt/ingest" 2>/dev/null; : >"$dir/hurt/ingest/fails@20" # where a directory is to be
	cp -a "$run/checkpoint-20" "$dir/waits/"; mv "$dir/waits/checkpoint-20" "$dir/fails/"
	for ((i = 0; i < 300; i++)); do ctl --config "$dir/fails.conf" status && grep -q 'LAST ERROR' "$dir/out" && break; sleep 0.1; done
	expect 0 --config "$dir/fails.conf" status; says 'AGAIN IN'; says 'fails@20'; says 'cannot '; says "'tpdectl retry' tries at once"
	expect 0 --config "$dir/fails.conf" status --json; is_json "$dir/out"; says '"retries":[{"run":"fails","step":20,'
	for ((i = 0; i < 100; i++)); do ctl --config "$dir/fails.conf" retry; grep -q '^1 is tried again' "$dir/out" && break; sleep 0.1; done
	says '1 is tried again'
	rm "$dir/hurt/ingest/fails@20"
	for ((i = 0; i < 300; i++)); do ctl --config "$dir/fails.conf" retry --json; ctl --store "$dir/hurt" show fails@20 && break; sleep 0.1; done
	expect 0 --config "$dir/fails.conf" retry --json; is_json "$dir/out"; says '{"retried":0,"state":"'
	expect 0 --store "$dir/hurt" verify fails@20
	# What cannot be stored as it is: why, and where it lies, for as long as that is so; stored when the reason is gone.
	wait_for() { for ((i = 0; i < 300; i++)); do ctl --config "$dir/fails.conf" "${@:2}" && grep -q "$1" "$dir/out" && break; sleep 0.1; done; }
	printf 'settle = 300ms\n' >>"$dir/fails.conf"; kill -HUP $daemon
	cp -a "$run/checkpoint-40" "$dir/waits/"; : >"$dir/waits/checkpoint-40/"$'x\xff'; mv "$dir/waits/checkpoint-40" "$dir/fails/"
	wait_for 'CANNOT BE STORED' status
	says '1 failed'; says "fails@40          $dir/fails/checkpoint-40  "; says 'is not UTF-8'; says "and by 'tpdectl retry'"
	cp -a "$run/checkpoint-60" "$dir/waits/"; mkdir -p "$dir/waits/checkpoint-60/$(printf 'd/%.0s' {1..40})"; mv "$dir/waits/checkpoint-60" "$dir/fails/"
	wait_for '2 failed' status; says "fails@60          $dir/fails/checkpoint-60  "; says 'levels of directories'
	wait_for '"failed":2},"failed":.{"run":"fails","step":40,"path":' status --json; is_json "$dir/out"; says '"failed":2},"failed":[{"run":"fails","step":40,"path":'
	expect 0 --config "$dir/fails.conf" retry; says '2 are tried again'
	wait_for '"failed":2},"failed":.{"run":"fails","step":40,.*"failed":2,"retrying":0' status --json; says '"failed":2},"failed":[{"run":"fails","step":40,"path":'
	kill $daemon; wait $daemon
	expect 0 --config "$dir/fails.conf" status; says "fails@60          $dir/fails/checkpoint-60  "
	"$build/tpded" --config "$dir/fails.conf" >>"$dir/log" 2>&1 &
	daemon=$!
	wait_for '"failed":2},"failed":.*"failed":2,"retrying":0' status --json
	expect 0 --config "$dir/fails.conf" status; says "fails@60          $dir/fails/checkpoint-60  "; says "fails@40          $dir/fails/checkpoint-40  "
	rm "$dir/fails/checkpoint-40/"$'x\xff'; wait_for '"step":40' --store "$dir/hurt" show fails@40 --json
	wait_for ' 1 failed' status; says "fails@60          $dir/fails/checkpoint-60  "
	rm -r "$dir/fails/checkpoint-60"; wait_for ' 0 failed' status; says ' 0 failed'
	if grep -q 'CANNOT BE STORED' "$dir/out"; then fail "what is gone cannot be stored: $(cat "$dir/out")"; fi
	expect 0 --store "$dir/hurt" verify fails@40
	kill $daemon; wait $daemon
	printf '[store]\npath = %s\n[daemon]\ncontrol_socket = %s\n' "$dir/hurt" "$dir/socket" >"$dir/none.conf"
	expect 0 config-check "$dir/none.conf"; says '0 watches'; complains 'watches nothing'
	expect 0 --config "$dir/none.conf" config-check; complains 'watches nothing'
	"$build/tpded" --config "$dir/none.conf" >"$dir/log" 2>&1 &
	daemon=$!
	for ((i = 0; i < 100; i++)); do grep -q 'watches nothing' "$dir/log" && break; sleep 0.1; done
	kill $daemon; wait $daemon
	grep -q 'warning: .*watches nothing' "$dir/log" || fail "tpded watches nothing without a word: $(cat "$dir/log")"
fi
if command -v sqlite3 >/dev/null; then
	sqlite3 "$dir/hurt/catalog.sqlite" "INSERT INTO events (time_ns, level, text) VALUES (1700000000123456789, 'info', 'x')" 2>"$dir/err"
	silent
	expect 0 "${hurt[@]}" status --socket "$dir/nobody" --json; says '"time_ns":1700000000123456789,"level":"info"'
fi

# --- discard ---
copy; mkdir "$dir/hurt/ingest/demo@7"; head -c 12345 /dev/zero >"$dir/hurt/ingest/demo@7/f00000.p00000"
cp -a "$dir/hurt" "$dir/hurt2"
expect 4 "${hurt[@]}" discard demo@20; complains 'demo@20'
expect 4 "${hurt[@]}" discard nothing@7; [ ! -e "$dir/hurt/refs/nothing" ] || fail 'discard made a run'
for name in demo demo@latest demo@7~1 @7; do expect 2 "${hurt[@]}" discard $name; grep -q 'RUN@STEP' "$dir/err" || fail "discard $name: $(cat "$dir/err")"; done
expect 0 "${hurt[@]}" discard demo@7; says 'demo@7  discarded: 12.3 kB'; silent
[ -z "$(ls -A "$dir/hurt/ingest")" ] || fail 'discard left something behind'
expect 4 "${hurt[@]}" discard demo@7
expect 0 --store "$dir/hurt2" discard demo@7 --json; is_json "$dir/out"; says '"bytes":12345'
expect 0 "${hurt[@]}" verify; [ "$(grep -c '^ok ' "$dir/out")" -eq "$total" ] || fail 'discard took more than it should'

# --- another writer, interruption ---
big 60000000
stopped=
for attempt in 1 2 3 4 5; do # until it is stopped while it holds the run's lock
	# A shell without job control starts it with SIGINT ignored.
	env --default-signal=INT "$dir/tpdectl" "${base[@]}" --threads 1 ingest "$dir/big/step-1.bin" --run big --step $attempt >"$dir/out1" 2>"$dir/err1" &
	writer=$!
	while kill -0 $writer 2>/dev/null && [ ! -e "$store/ingest/big@$attempt" ]; do :; done
	kill -STOP $writer 2>/dev/null
	[ -e "$store/ingest/big@$attempt" ] && stopped=$attempt && break
	wait $writer
done
if [ -n "$stopped" ]; then
	expect 6 "${base[@]}" --lock-timeout 0.3 ingest "$dir/big/step-1.bin" --run big --step 99; complains 'big'
	expect 0 "${base[@]}" list demo # readers do not wait
	expect 0 "${base[@]}" ingest "$run/checkpoint-80" --run demo # nor does another run
	expect 6 "${base[@]}" discard "big@$stopped"; complains 'big'; [ -e "$store/ingest/big@$stopped" ] || fail 'discarded in spite of a writer'
	kill -INT $writer; kill -CONT $writer; wait $writer
	[ $? -eq 130 ] || fail "SIGINT: ingest did not end with 130: $(cat "$dir/err1")"
	expect 4 "${base[@]}" show "big@$stopped"
	expect 0 "${base[@]}" status --socket "$dir/nobody"; says "unfinished  big@$stopped"; says 'tpdectl discard RUN@STEP'
	expect 0 "${base[@]}" status --socket "$dir/nobody" --json; is_json "$dir/out"; says "\"unfinished\":[{\"run\":\"big\""
	[ "$(COMP_WORDS=(tpdectl --store "$store" discard ''); COMP_CWORD=4; PATH=$dir:$PATH; . tools/completion/tpdectl.bash
		_tpdectl; echo "${COMPREPLY[*]}")" = "big@$stopped" ] || fail 'completion does not offer what is unfinished'
	expect 0 "${base[@]}" ingest "$dir/big/step-1.bin" --run big --step "$stopped"
else
	skip 'no ingest could be stopped in time'
fi
expect 0 "${base[@]}" ingest "$dir/big/step-1.bin" --run big --step 50
stopped=
for attempt in 1 2 3 4 5; do
	rm -rf "$dir/cut"
	"$dir/tpdectl" "${base[@]}" --threads 1 restore big@50 --to "$dir/cut" >"$dir/out1" 2>"$dir/err1" &
	reader=$!
	while kill -0 $reader 2>/dev/null && [ -z "$(ls -A "$dir/cut" 2>/dev/null)" ]; do :; done
	kill -TERM $reader 2>/dev/null
	wait $reader
	code=$?
	[ $code -eq 0 ] && continue
	stopped=1
	[ $code -eq 143 ] || fail "SIGTERM: restore ended with $code: $(cat "$dir/err1")"
	empty "$dir/cut"
	break
done
[ -n "$stopped" ] || skip 'no restore could be interrupted in time'

# --- terminals and pipes ---
ctl_to_full() { "$dir/tpdectl" "${base[@]}" list >/dev/full 2>"$dir/err"; }
ctl_to_full && fail 'a full disk behind standard output goes unnoticed'
complains 'standard output'
"$dir/tpdectl" "${base[@]}" show demo@40 --tensors 2>"$dir/err" | head -n 1 >/dev/null; silent
if command -v script >/dev/null; then
	big 200000000
	on_terminal() { TERM=xterm script -qec "$dir/tpdectl --store $store ingest $dir/big/step-1.bin --run bar --threads 1 $*" /dev/null </dev/null >"$dir/out" 2>&1; }
	on_terminal --step 1; grep -q ' %' "$dir/out" || skip 'too fast for a progress line'
	! grep -aq '% .*bar@1~1' <(tr '\r' '\n' <"$dir/out") || fail 'the progress line is not erased'
	on_terminal --step 2 --quiet; ! grep -aq $'\r\033' "$dir/out" || fail '--quiet shows progress'
fi

# --- rights and space ---
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
	nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$dir/tpdectl" "$@" >"$dir/out" 2>"$dir/err"; }
	copy; chmod -R a+rX "$dir/hurt"
	nobody "${hurt[@]}" list demo || fail "a reader without rights to write cannot list: $(cat "$dir/err")"
	nobody "${hurt[@]}" verify demo@20 || fail "... cannot verify: $(cat "$dir/err")"
	rm "$dir/hurt/catalog.sqlite"
	nobody "${hurt[@]}" list demo || fail "... cannot list without a catalog: $(cat "$dir/err")"
	says 'demo@40~2'
	nobody "${hurt[@]}" ingest "$dir/weights-step=7.ckpt" --run x; [ $? -eq 1 ] || fail '... could ingest'
	complains 'ermission denied'
	mkdir "$dir/closed"; chmod 755 "$dir/closed"
	nobody "${hurt[@]}" restore demo@20 --to "$dir/closed"; [ $? -eq 1 ] || fail '... could restore where it must not write'
	complains 'ermission denied'
	chmod 700 "$dir/hurt"
	nobody "${hurt[@]}" list; [ $? -eq 1 ] || fail "a closed store: not exit code 1: $(cat "$dir/err")"
	complains 'ermission denied'
else
	skip 'rights: not root, or no setpriv'
fi
mkdir "$dir/small"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=1m tmpfs "$dir/small" 2>/dev/null; then
	trap 'kill -9 $(jobs -p) 2>/dev/null; wait 2>/dev/null; umount "$dir/small"; rm -rf "$dir"' EXIT
	full=(--store "$dir/small/store")
	expect 0 "${full[@]}" ingest "$run/checkpoint-20" --run demo
	expect 1 "${full[@]}" ingest "$run/checkpoint-40" --run demo; complains 'No space left on device'
	expect 0 "${full[@]}" verify; says '1 checkpoint verified'
	expect 1 "${full[@]}" restore demo@20 --to "$dir/small/out"; complains 'No space left on device'; empty "$dir/small/out"
	mount -o remount,size=20m "$dir/small"
	expect 0 "${full[@]}" ingest "$run/checkpoint-40" --run demo
	expect 0 "${full[@]}" verify; says '2 checkpoints verified'
else
	skip 'a full disk: no tmpfs can be mounted here'
fi

expect 0 "${base[@]}" verify
[ $failures -eq 0 ] && echo "tpdectl: all as it should be"
[ $failures -eq 0 ]

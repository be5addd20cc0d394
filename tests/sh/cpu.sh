#!/bin/bash
# cpu.sh - one kind of CPU stores what another kind restores: the demo's checkpoints with every form of the kernels that this machine
# has (TPD_CPU), whose payloads must be the same bytes, and each store read with every other form. BUILD names the directory of the programs.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
run=$PWD/tools/demo/run
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
unset TPDED_STORE TPD_CPU
failures=0 forms=()
fail() { echo "cpu: $*"; failures=$((failures + 1)); }
ctl() { "$build/tpdectl" --quiet --store "$@" >"$dir/out" 2>"$dir/err"; }

# digests STORE: of all payloads, by their place
digests() { (cd "$1/objects" && find . -name 'f*.p*' -exec sha256sum {} + | sort -k 2); }

for form in scalar plain avx2 avx512; do
	TPD_CPU=$form ctl "$dir/$form" ingest "$run/checkpoint-20" --run demo
	case $? in
	0) forms+=("$form") ;;
	*) grep -q "TPD_CPU=$form: this CPU cannot do that" "$dir/err" || fail "$form: $(cat "$dir/err")" ;;
	esac
done
[ "${forms[0]:-}" = scalar ] || fail 'no scalar form'
TPD_CPU=sse9 ctl "$dir/none" ingest "$run/checkpoint-20" --run demo
[ $? -eq 2 ] || fail "exit code $? for an unknown form"
grep -q 'TPD_CPU=sse9: it may be scalar, plain, avx2 or avx512' "$dir/err" || fail "an unknown form: $(cat "$dir/err")"

mkdir "$dir/watched"
printf '[store]\npath = %s/d\n[watch:a]\npath = %s/watched\n' "$dir" "$dir" >"$dir/conf"
TPD_CPU=sse9 "$build/tpded" --check-config --config "$dir/conf" >"$dir/out" 2>"$dir/err"
[ $? -eq 2 ] || fail "exit code $? of tpded for an unknown form"
grep -q 'TPD_CPU=sse9: it may be' "$dir/err" || fail "tpded and an unknown form: $(cat "$dir/err")"

# Which form proves what another made.
here=" ${forms[*]} "
for form in "${forms[@]}"; do
	case $form in
	avx2) proof=plain ;;
	*) [[ $here == *' avx2 '* ]] && proof=avx2 || proof=scalar ;;
	esac
	TPD_CPU=$form "$build/tpded" --config "$dir/conf" 2>"$dir/log" &
	for ((i = 0; i < 300; i++)); do
		grep -q 'the codec runs' "$dir/log" && break
		sleep 0.1
	done
	kill $! && wait $!
	grep -q "the codec runs in its $form form, proved by $proof" "$dir/log" || fail "$form is not proved by $proof: $(cat "$dir/log")"
done

for form in "${forms[@]}"; do
	for step in 40 60 80; do
		TPD_CPU=$form ctl "$dir/$form" ingest "$run/checkpoint-$step" --run demo || fail "$form, step $step: $(cat "$dir/err")"
	done
	digests "$dir/$form" >"$dir/$form.digests"
	cmp -s "$dir/scalar.digests" "$dir/$form.digests" || fail "$form stores other bytes than scalar"
	for other in "${forms[@]}"; do
		TPD_CPU=$other ctl "$dir/$form" verify || fail "what $form stored, $other does not verify: $(cat "$dir/err")"
	done
done
[ "$(wc -l <"$dir/scalar.digests")" -ge 8 ] || fail 'few payloads were compared'
echo "cpu: ${forms[*]}: $(wc -l <"$dir/scalar.digests") payloads each"
[ "$failures" -eq 0 ]

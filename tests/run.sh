#!/bin/bash
# run.sh LOGDIR JOBS PROGRAM... - runs the test programs and scripts, JOBS at a time, and goes on after a failure.
#
# Each one's output goes to LOGDIR/NAME.log and is shown whole when it ends, so that lines never mix. A program passes
# with status 0 and is skipped with 77 (its log says why); anything else, or TEST_TIMEOUT seconds (default 300, for a
# sanitizer build 900), is a failure. The last line counts; the status is 0 only when something passed and nothing failed.
set -u
logs=$1 jobs=$2
shift 2
mkdir -p "$logs" || exit 2
rm -f "$logs"/*.log "$logs"/*.status
seconds=${TEST_TIMEOUT:-$([ -n "${SAN:-}" ] && echo 900 || echo 300)}

# Sanitizers: the first finding ends the program. libcheck's own timeouts (4 s a test unless set) are for an idle machine.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
# The longest history: what a suppression names (daemon/control.c) must still be known when it is asked for.
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1:history_size=7}
export CK_TIMEOUT_MULTIPLIER=${CK_TIMEOUT_MULTIPLIER:-$([ -n "${SAN:-}" ] && echo 10 || echo 4)}
# gcc's thread sanitizer cannot map its memory where addresses are randomised by more than 28 bits.
fixed=()
case ${SAN:-} in
*thread*) setarch "$(uname -m)" -R true 2>/dev/null && fixed=(setarch "$(uname -m)" -R) ;;
esac

run_one() {
	local program=$1 name status started child
	name=$(basename "$program" .sh)
	case $program in */*) ;; *) program=./$program ;; esac
	started=$(date +%s%N)
	timeout -k 10 "$seconds" "${fixed[@]}" "$program" >"$logs/$name.log" 2>&1 </dev/null &
	child=$!
	trap 'kill $child 2>/dev/null; exit 130' INT TERM
	wait "$child"
	status=$?
	# timeout leads a process group of its own: what the program left behind ends here.
	kill -9 -- "-$child" 2>/dev/null
	echo $status >"$logs/$name.status"
	{
		flock 9
		awk -v name="$name" -v ns=$(($(date +%s%N) - started)) 'BEGIN { printf "== %s (%.1f s)\n", name, ns / 1e9 }'
		cat "$logs/$name.log"
		case $status in
		0) ;;
		77) echo "-- $name skipped" ;;
		124 | 137) echo "-- $name FAILED: no end within $seconds s, or killed (status $status)" ;;
		*) echo "-- $name FAILED with status $status" ;;
		esac
	} 9>"$logs/lock"
}

trap 'trap - INT TERM; kill $(jobs -p) 2>/dev/null; wait; exit 130' INT TERM
running=0
for program; do
	if [ "$running" -ge "$jobs" ]; then
		wait -n
		running=$((running - 1))
	fi
	run_one "$program" &
	running=$((running + 1))
done
wait

passed=0 failed=0 skipped=0 names=
for program; do
	name=$(basename "$program" .sh)
	case $(cat "$logs/$name.status" 2>/dev/null) in
	0) passed=$((passed + 1)) ;;
	77) skipped=$((skipped + 1)) ;;
	*) failed=$((failed + 1)) names="$names $name" ;;
	esac
done
[ -z "$names" ] || echo "failed:$names (logs in $logs)"
echo "$passed passed, $failed failed$([ $skipped -eq 0 ] || echo ", $skipped skipped")"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]

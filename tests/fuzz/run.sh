#!/bin/bash
# run.sh DIR SECONDS JOBS TARGET... - runs the fuzz targets in DIR (make fuzz builds them), JOBS at a time, SECONDS each.
#
# What a target finds new goes to DIR/corpus/NAME, an input that breaks it to DIR/NAME-crash-*; the log is DIR/TARGET.log. At the end
# one line a target with its executions, and the coverage of the parsers by all of them. Status 1 when one broke.
set -u
dir=$1 seconds=$2 jobs=$3
shift 3
here=$(dirname "$0")
# Debian has it with and without a version.
tool() { for name in "$1" "$1"-{20..14}; do command -v "$name" && return; done; }
profdata=$(tool llvm-profdata) cov=$(tool llvm-cov)

run_one() {
	local target=$1 name=${1#fuzz_}
	mkdir -p "$dir/corpus/$name"
	LLVM_PROFILE_FILE=$dir/$target.profraw "$dir/$target" -max_total_time="$seconds" -print_final_stats=1 -timeout=20 \
		-rss_limit_mb=2048 -max_len=16384 -artifact_prefix="$dir/$name-crash-" "$dir/corpus/$name" "$here/corpus/$name" \
		>"$dir/$target.log" 2>&1 || echo "$target" >>"$dir/failed"
}

rm -f "$dir/failed" "$dir"/*.profraw
for target; do
	while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do
		wait -n
	done
	run_one "$target" &
done
wait

for target; do
	awk -v target="$target" '
		/number_of_executed_units/ { units = $2 }
		/peak_rss_mb/ { rss = $2 }
		/cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
		END { printf "%-18s %12d executions, %5d edges, %4d MB at most\n", target, units, cov, rss }' "$dir/$target.log"
done
if [ -n "$profdata" ] && [ -n "$cov" ] && ls "$dir"/*.profraw >/dev/null 2>&1; then
	"$profdata" merge -o "$dir/all.profdata" "$dir"/*.profraw
	objects=("$dir/$1")
	for target in "${@:2}"; do
		objects+=(-object "$dir/$target")
	done
	"$cov" report "${objects[@]}" -instr-profile="$dir/all.profdata" common/format/*.c 2>/dev/null |
		awk 'NR == 1 || /^-/ { next } NF >= 10 { printf "%-18s %6s lines %6s missed %8s\n", $1, $8, $9, $10 }'
fi
if [ -e "$dir/failed" ]; then
	echo "broken: $(tr '\n' ' ' <"$dir/failed")(logs and inputs in $dir)"
	exit 1
fi

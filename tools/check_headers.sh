#!/bin/bash
# check_headers.sh [COMPILER...] - does each header compile alone, without a warning, with each compiler (default: gcc)?
# A header that leans on what happens to be included before it breaks the next file that includes it first. Those for one kind of CPU
# (*_avx2.h, *_avx512.h) are empty elsewhere, so a compiler for x86-64 reads them again for that CPU.
set -u
[ $# -gt 0 ] || set -- gcc

mapfile -d '' headers < <(find common daemon tools tests -name '*.h' -print0 2>/dev/null | sort -z)
[ ${#headers[@]} -gt 0 ] || { echo "check_headers: no headers in $PWD" >&2; exit 2; }
libraries=$(pkg-config --cflags libuv libzstd inih sqlite3 libxxhash libcrypto) || exit 2

avx2='-mavx2 -mbmi2 -mpopcnt'
avx512="$avx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vbmi2 -mavx512cd"
# Included from standard input: a main file that is a header draws warnings of its own.
# shellcheck disable=SC2016
one='printf "#include \"%s\"\n" "$3" | $1 -std=c11 -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes \
	-Wno-unused-function -Werror -Icommon -I. $2 -fsyntax-only -x c - || { echo "check_headers: $3 does not compile alone with $1" >&2; exit 1; }'
failed=0
for compiler in "$@"; do
	command -v "$compiler" >/dev/null || { echo "check_headers: there is no $compiler" >&2; exit 2; }
	printf '%s\0' "${headers[@]}" | xargs -0 -n 1 -P "$(nproc)" sh -c "$one" - "$compiler" "$libraries" || failed=1
	case $("$compiler" -dumpmachine) in x86_64*) ;; *) continue ;; esac
	for kind in avx2 avx512; do
		printf '%s\0' "${headers[@]}" | grep -z "_$kind\.h$" |
			xargs -0 -r -n 1 -P "$(nproc)" sh -c "$one" - "$compiler" "$libraries ${!kind}" || failed=1
	done
done
[ $failed -eq 0 ] && echo "${#headers[@]} headers compile alone with $*"
exit $failed

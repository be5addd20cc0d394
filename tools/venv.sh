#!/bin/bash
# venv.sh DIR PACKAGE... - a Python environment in DIR with these packages, for the benchmarks and the real frameworks;
# quick when it is there already. The product itself needs no Python.
#
# torch is pinned here, in one place: its checkpoints are what we measure, so its version is part of the figures.
set -u
torch=torch==2.13.0

[ $# -ge 1 ] || { echo 'usage: tools/venv.sh DIR PACKAGE...' >&2; exit 2; }
dir=$1
shift
packages=()
for package in "$@"; do
	case $package in
	torch) packages+=("$torch") ;;
	torch[=\<\>~!]*)
		[ "$package" = "$torch" ] || { echo "tools/venv.sh: '$package': it is $torch here" >&2; exit 2; }
		packages+=("$package") ;;
	*) packages+=("$package") ;;
	esac
done

# What the environment was made with, written last: a half-made one has none.
record=$dir/packages.txt
wanted=$(printf '%s\n' "${packages[@]}")
[ -f "$record" ] && [ "$(cat "$record")" = "$wanted" ] && "$dir/bin/python" -c '' 2>/dev/null && exit 0

"$(dirname "$0")/setup.sh" python || exit 1
echo "Making a Python environment in $dir: ${packages[*]}"
rm -f "$record"
python3 -m venv "$dir" || { echo "tools/venv.sh: cannot make a Python environment in '$dir'" >&2; exit 1; }
if [ ${#packages[@]} -gt 0 ]; then
	"$dir/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" ||
		{ echo "tools/venv.sh: pip could not install ${packages[*]}" >&2; exit 1; }
fi
printf '%s\n' "$wanted" >"$record"

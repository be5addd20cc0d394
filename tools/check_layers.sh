#!/bin/bash
# check_layers.sh [DIR] - do the parts of the source in DIR (default: here) include only what they may?
#
#     base <- {format, codec} <- store       {store, catalog} <- archive <- {daemon, tools}
#     base <- catalog                         base <- wire <- {daemon, tools}
#
# uv.h only in daemon/, sqlite3.h only in common/catalog/, zstd*.h only in common/codec/; daemon and tools know nothing
# of each other, and common/ nothing of either. The second decoder in tests/ includes nothing of ours: that is its point.
# One line a breach, "FILE:LINE: why"; status 1 if there is any. Plain awk over the #include lines: no compiler needed.
set -u
cd "${1:-.}" || exit 2

mapfile -d '' files < <(find common daemon tools tests -name '*.[ch]' -print0 2>/dev/null | sort -z)
[ ${#files[@]} -gt 0 ] || { echo "check_layers: no source files in $PWD" >&2; exit 2; }

awk '
BEGIN {
	may["base"] = "base"
	may["format"] = "format base"
	may["codec"] = "codec base"
	may["store"] = "store format codec base"
	may["catalog"] = "catalog base"
	may["archive"] = "archive store catalog format codec base"
	may["wire"] = "wire base"
	may["daemon"] = "daemon archive wire store catalog format codec base"
	may["tools"] = "tools archive wire store catalog format codec base"
	may["tests"] = "tests daemon tools archive wire store catalog format codec base"
	owner["uv"] = "daemon"
	owner["sqlite3"] = "catalog"
	owner["zstd"] = "codec"
}
function breach(why) { printf "%s:%d: %s\n", FILENAME, FNR, why; breaches++ }
FNR == 1 {
	parts = split(FILENAME, part, "/")
	layer = part[1] == "common" ? part[2] : part[1]
	if (!(layer in may))
		breach("there is no layer common/" layer)
	second = FILENAME ~ /^tests\/second_[a-z0-9_]+\.[ch]$/
}
/^[ \t]*#[ \t]*include/ {
	name = $0
	sub(/^[ \t]*#[ \t]*include[ \t]*/, "", name)
	system_header = name ~ /^</
	sub(/^["<]/, "", name)
	sub(/[">].*$/, "", name)
	if (name ~ /\.\./)
		breach("\"" name "\": no way up: name the layer")

	library = name
	sub(/(_errors)?\.h$/, "", library)
	if (library ~ /^uv\//)
		library = "uv"
	# A test may drive a library itself: zstd in the second decoder, sqlite in the tests of the catalog.
	if (library in owner && layer != owner[library] && layer != "tests")
		breach("<" name "> belongs to " (owner[library] == "daemon" ? "" : "common/") owner[library] "/ only")
	if (system_header)
		next

	if (second && name !~ /^second_[a-z0-9_]+\.h$/)
		breach("the second decoder includes nothing of ours, here \"" name "\"")
	slash = index(name, "/")
	if (!slash)
		next # a neighbour in the same directory, or generated for it
	target = substr(name, 1, slash - 1)
	if (target == "common")
		breach("\"" name "\": written without common/")
	else if (!(target in may))
		breach("\"" name "\": there is no layer " target)
	else if (index(" " may[layer] " ", " " target " ") == 0)
		breach(layer " may not include " target " (\"" name "\")")
}
END { exit breaches > 0 }
' "${files[@]}"

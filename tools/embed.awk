# Turns a text file into a C header with one string: awk -v name=NAME -f tools/embed.awk FILE > HEADER
# Character by character, since awks disagree about backslashes in gsub(); `?` is escaped because of trigraphs.

BEGIN {
	printf "/* Made from %s: edit that. */\n", (ARGC > 1 ? ARGV[1] : "standard input")
	printf "static const char %s[] =", name
}

{
	out = ""
	for (i = 1; i <= length($0); i++) {
		c = substr($0, i, 1)
		if (c == "\\" || c == "\"" || c == "?")
			out = out "\\"
		out = out (c == "\t" ? "\\t" : c)
	}
	printf "\n\t\"%s\\n\"", out
}

END {
	if (NR == 0)
		printf " \"\""
	printf ";\n"
}

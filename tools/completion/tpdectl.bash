# bash completion for tpdectl; installed as share/bash-completion/completions/tpdectl
# Names of runs and checkpoints are asked from the store that the command line names; a store that cannot be read offers none.

# The common options on the command line that say which store, as typed.
_tpdectl_place() {
	local i
	place=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--store | --catalog | --config)
			# bash may have split "--store=DIR" at the "=".
			if [[ ${COMP_WORDS[i + 1]} == = ]]; then
				place+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 2]/#\~/$HOME}")
			elif ((i + 1 < COMP_CWORD)); then
				place+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]/#\~/$HOME}")
			fi
			;;
		esac
	done
}

# RUN, or with `steps` RUN@STEP, one a line, out of `tpdectl --json list`.
_tpdectl_names() {
	local place
	_tpdectl_place
	tpdectl "${place[@]}" --json list 2>/dev/null | tr '{}' '\n\n' | awk -v steps="$1" '
		match($0, /"run": *"[^"]*"/) {
			run = substr($0, RSTART, RLENGTH)
			sub(/^"run": *"/, "", run)
			sub(/"$/, "", run)
			if (!(run in seen)) {
				seen[run] = 1
				print steps ? run "@latest" : run
			}
			if (steps && match($0, /"step": *[0-9]+/)) {
				step = substr($0, RSTART, RLENGTH)
				sub(/^.*[^0-9]/, "", step)
				print run "@" step
			}
		}' | sort -u
}

# Metrics that the checkpoints of a run have, one a line; of all runs where it is not given.
_tpdectl_metrics() {
	local place
	_tpdectl_place
	# shellcheck disable=SC2086
	tpdectl "${place[@]}" --json list ${1:+"$1"} 2>/dev/null | grep -o '"metrics": *{[^}]*}' | sed 's/^"metrics": *{//' |
		grep -o '"[^"]*": *[-0-9]' | sed 's/^"\(.*\)": *[-0-9]$/\1/' | sort -u
}

# RUN@STEP of what was begun and not finished, one a line.
_tpdectl_unfinished() {
	local place
	_tpdectl_place
	tpdectl "${place[@]}" --json status 2>/dev/null | grep -o '"unfinished": *\[[^]]*\]' | head -n 1 | tr '{}' '\n\n' |
		sed -n 's/^"run": *"\([^"]*\)", *"step": *\([0-9]*\).*/\1@\2/p'
}

_tpdectl() {
	local commands='status retry list show ingest restore verify discard stats rebuild-catalog config-check'
	local common='--store --catalog --config --json --quiet --threads --lock-timeout --help --version'
	local cur prev command='' word i words is_help=''
	cur=${COMP_WORDS[COMP_CWORD]}
	prev=${COMP_WORDS[COMP_CWORD - 1]}
	COMPREPLY=()

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		--store | --catalog | --config | --threads | --lock-timeout | --run | --step | --to | --file | --socket | --metric | --effort | --depend | --base) ((i++)) ;;
		-*) ;;
		help) [[ -n $command ]] || is_help=1 ;;
		*) [[ -n $command || " $commands " != *" $word "* ]] || command=$word ;;
		esac
	done

	case $prev in
	--store | --to) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); compopt -o filenames; return ;;
	--catalog | --config | --socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames; return ;;
	--run) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_names '')" -- "$cur"); return ;;
	--metric) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_metrics)" -- "$cur"); return ;;
	--threads | --lock-timeout | --step | --file) return ;;
	--effort) mapfile -t COMPREPLY < <(compgen -W 'fast balanced max' -- "$cur"); return ;;
	--depend) mapfile -t COMPREPLY < <(compgen -W 'none weights optimizer' -- "$cur"); return ;;
	--base)
		if [[ $cur == [./]* ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			compopt -o filenames
		else
			mapfile -t COMPREPLY < <(compgen -W "auto none $(_tpdectl_names ''; _tpdectl_names steps)" -- "$cur")
		fi
		return
		;;
	esac

	# RUN@best:METRIC. ":" is a word break of readline's own, so that RUN@best and METRIC are words beside it; where it is none, one word.
	i=$((COMP_CWORD - 1))
	[[ $cur != : ]] || { cur='' i=$COMP_CWORD; }
	case ${COMP_WORDS[i - 1]}${COMP_WORDS[i]} in
	*@best: | *@min: | *@max:)
		mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_metrics "${COMP_WORDS[i - 1]%@*}")" -- "$cur")
		return
		;;
	esac
	case $cur in
	*@best:* | *@min:* | *@max:*)
		mapfile -t COMPREPLY < <(compgen -P "${cur%%:*}:" -W "$(_tpdectl_metrics "${cur%%@*}")" -- "${cur#*:}")
		return
		;;
	esac

	if [[ $cur == -* ]]; then
		words=$common
		case $command in
		status | retry) words+=' --socket' ;;
		list) words+=' --runs --metric' ;;
		show) words+=' --tensors' ;;
		ingest) words+=' --run --step --base --effort --depend' ;;
		restore) words+=' --to --file --force' ;;
		esac
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		return
	fi

	if [[ -n $is_help ]]; then
		[[ -n $command ]] || mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
		return
	fi

	case $command in
	'') mapfile -t COMPREPLY < <(compgen -W "$commands help" -- "$cur") ;;
	list | stats) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_names '')" -- "$cur") ;;
	verify) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_names ''; _tpdectl_names steps)" -- "$cur") ;;
	discard) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_unfinished)" -- "$cur") ;;
	show | restore) mapfile -t COMPREPLY < <(compgen -W "$(_tpdectl_names steps)" -- "$cur") ;;
	ingest | config-check) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames ;;
	esac
}
# '@' is a word break of readline's own, for host names; a checkpoint's name is one word.
COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}
complete -F _tpdectl tpdectl

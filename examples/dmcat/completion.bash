# SPDX-License-Identifier: MIT
# bash completion for dmcat. Needs nothing but bash; installed as bash-completion/completions/dmcat.

# Offers the words of $1 that begin with what has been typed.
_dmcat_offer() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

_dmcat_files() {
	compopt -o filenames 2> /dev/null
	mapfile -t COMPREPLY < <(compgen -f -- "${1-$current}")
}

# Devices that the command line defines by -d, and files.
_dmcat_devices() {
	local names='' i

	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} == -d && ${COMP_WORDS[i + 2]-} == '=' ]]; then
			names+=" ${COMP_WORDS[i + 1]}"
		elif [[ ${COMP_WORDS[i]} == -d && ${COMP_WORDS[i + 1]-} == *=* ]]; then
			names+=" ${COMP_WORDS[i + 1]%%=*}"
		fi
	done
	compopt -o filenames 2> /dev/null
	mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current"; compgen -f -- "$current")
}

# A file behind an @, of -t or of -d NAME=.
_dmcat_table() {
	local typed=${current##*=} i

	[[ $typed == @* ]] || return 0
	_dmcat_files "${typed#@}"
	for i in "${!COMPREPLY[@]}"; do
		COMPREPLY[i]=@${COMPREPLY[i]}
	done
}

# The command that stands on the line, if any.
_dmcat_command() {
	local i word

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-d | -t | -c | -b | --dev | --workers | --start-* | --limit | --end-mark | --rate | \
			--resume | --save-every | --chunk-size | --origin)
			((i++))
			# readline splits NAME=TABLE into three words.
			[[ ${COMP_WORDS[i + 1]-} != '=' ]] || ((i += 2))
			;;
		--watch)
			[[ ${COMP_WORDS[i + 1]-} != '=' ]] || ((i += 2))
			;;
		-* | =) ;;
		*)
			echo "$word"
			return
			;;
		esac
	done
}

_dmcat() {
	local current=${COMP_WORDS[COMP_CWORD]}
	local previous=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	[[ $current != '=' ]] || current=
	case $previous in
	-b)
		_dmcat_offer 'auto io_uring pread'
		return
		;;
	--dev | --origin)
		_dmcat_devices
		return
		;;
	-d | -t | '=')
		_dmcat_table
		return
		;;
	--resume)
		_dmcat_files
		return
		;;
	-c | --workers | --start-entry | --start-mark | --limit | --end-mark | --rate | --save-every | \
		--chunk-size)
		return
		;;
	esac
	if [[ $current == -* ]]; then
		_dmcat_offer '-d -t -c --dev -b --workers -r --direct --json --watch -q -k
			--start-entry --start-mark --limit --end-mark --next-flush --next-fua
			--sparse --share --verify --rate --resume --save-every --ignore-errors --grow
			--no-flush --all --chunk-size --origin -h --help -V --version'
		return
	fi
	case $(_dmcat_command) in
	'')
		_dmcat_offer 'read write copy status table info targets run replay
			cow-dump cow-check scrub'
		;;
	run)
		_dmcat_files
		;;
	replay | copy | cow-*)
		_dmcat_devices
		;;
	scrub)
		_dmcat_offer repair
		;;
	esac
}

complete -F _dmcat dmcat

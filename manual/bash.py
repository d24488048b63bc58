"""Completion for bash 3.2 and later, with or without the package bash-completion."""

from manual import values

HEAD = """\
# bash completion of {names}; written from the declarations by manual.write

# the word that is completed in cur, the one before it in prev: --mode=v and a:b are three words to bash
_toast_begin() {{
    local i=$COMP_CWORD
    cur=${{COMP_WORDS[i]}} colons=
    while ((i > 1)) && [[ $cur == :* || ${{COMP_WORDS[i - 1]}} == : ]]; do
        ((i--))
        cur=${{COMP_WORDS[i]}}$cur
    done
    [[ $cur == *:* ]] && colons=${{cur%:*}}:
    prev=${{COMP_WORDS[i - 1]}}
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[i - 2]}}; fi
}}

# those of the lines of standard input that begin as the word does; they are not expanded
_toast_reply() {{
    local line
    while IFS= read -r line; do
        [[ $line != "$cur"* ]] || COMPREPLY+=("${{line#"$colons"}}")
    done
}}

# names of files and folders: as readline has them, where nothing else is there to say
_toast_files() {{
    local IFS=$'\\n'
    compopt -o filenames 2> /dev/null
    COMPREPLY+=($(compgen "$@" -- "$cur"))
}}
"""
MODELS = f"""
_toast_models() {{
    _toast_reply < <(command sh -c '{values.MODELS}')
    [[ $cur == */* || $cur == .* ]] && _toast_files -f
}}
"""
NOTHING = "compopt +o default 2> /dev/null"
DO = {
    "models": "_toast_models", "indexes": "_toast_files -f -X '!*.db'; _toast_files -d", "folders": "_toast_files -d",
    "files": "_toast_files -f", "text": NOTHING,
}  # fmt: skip


def files(command, names):
    """(name of a file, its text): bash-completion looks for one of the command's name."""
    function = "_toast_" + names[0]
    body = group(command) if command.commands else cases(command, "    ")
    text = HEAD.format(names=", ".join(names))
    text += MODELS if "_toast_models" in body else ""
    text += f"\n{function}() {{\n    local cur prev colons\n    COMPREPLY=()\n    _toast_begin\n{body}}}\n\n"
    text += f"complete -o default -F {function} {' '.join(names)}\n"
    return [(name, text) for name in names]


def group(command):
    """The first word that is no option says which command."""
    lines = ["local i sub=", "for ((i = 1; i < COMP_CWORD; i++)); do"]
    lines += ["    [[ ${COMP_WORDS[i]} == -* ]] || { sub=${COMP_WORDS[i]}; break; }", "done", "case $sub in"]
    text = "".join(f"    {line}\n" for line in lines)
    for name, part in command.commands.items():
        text += f"    {name})\n{cases(part, '        ')}        ;;\n"
    return (
        text
        + f"    '')\n        {NOTHING}\n        {reply([*command.commands, *flags(command)])}\n        ;;\n    esac\n"
    )


def flags(command):
    return [flag for p in values.options(command) for flag in p.flags]


def reply(words):
    return "_toast_reply <<< $'" + "\\n".join(words) + "'"


def cases(command, indent):
    """After an option its values; after - options; else operands."""
    actions = {}  # what to do -> after which flags
    for p in values.options(command):
        found = values.kind(p)
        if found != "flag":
            actions.setdefault(reply(p.choices) if found == "choices" else DO[found], []).extend(p.flags)
    lines = ["case $prev in"]
    for action, its in actions.items():
        lines += [f"{' | '.join(its)})", f"    {action}", "    return", "    ;;"]
    lines += ["esac", "case $cur in", "-*)", f"    {NOTHING}", f"    {reply(flags(command))}", "    ;;", "*)"]
    wanted = dict.fromkeys(DO[found] for _, found, _ in values.operands(command) if found != "text")
    lines += [*(f"    {action}" for action in wanted or [NOTHING]), "    ;;", "esac"]
    return "".join(f"{indent}{line}\n" for line in lines)

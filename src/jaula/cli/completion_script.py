"""Completion scripts for bash, zsh and fish, generated from the table of commands and flags.

Commands and flags are part of the script. When the key is pressed, the script queries the engine
for the names of containers, images, networks and volumes.
"""

from __future__ import annotations

from jaula.cli import command_parser, command_table

NAME_COMMANDS = {
    "container": "jaula ps -a --format '{{.Names}}'",
    "pod": "jaula pod ls --format '{{.Name}}'",
    "image": "jaula images --format '{{.Repository}}:{{.Tag}}'",
    "network": "jaula network ls --format '{{.Name}}'",
    "volume": "jaula volume ls --format '{{.Name}}'",
    "context": "jaula context ls -q",
    "secret": "jaula secret ls --format '{{.Name}}'",
    "config": "jaula config ls --format '{{.Name}}'",
}

PRESETS = ("default", "strict", "docker", "honeypot")  # profiles that are not documents


def script(shell: str) -> str:
    """Return the script for ``bash``, ``zsh`` or ``fish``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _commands() -> list[tuple[str, command_parser.Command]]:
    """Return each command under each of its names."""
    return [(words, command_table.load(words)) for words in command_table.commands()]


def _names(prefix: str) -> list[str]:
    """Return the first words of all commands, or the second words of the group ``prefix``."""
    if not prefix:
        return sorted({words.partition(" ")[0] for words in command_table.commands()})
    return sorted(
        words.removeprefix(prefix + " ")
        for words in command_table.commands()
        if words.startswith(prefix + " ")
    )


def _spellings(flag: command_parser.Flag) -> list[str]:
    return [f"--{flag.name}"] + ([f"-{flag.short}"] if flag.short else [])


def _values(completes: str | tuple[str, ...]) -> str:
    """Return shell words that expand to the candidates, or an empty string."""
    if isinstance(completes, tuple):
        return " ".join(completes)
    return f"$({NAME_COMMANDS[completes]} 2>/dev/null)" if completes in NAME_COMMANDS else ""


def _profiles() -> str:
    """Return the names of profiles; a shell offers ``*.toml`` files too."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.spec import confinement_profile

    return " ".join((*PRESETS, *confinement_profile.packaged_names()))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# -- bash ---------------------------------------------------------------------------------------


def _bash() -> str:
    cases, arguments = [], []
    for path, command in _commands():
        words = " ".join(sorted(word for flag in _all(command) for word in _spellings(flag)))
        takes = " ".join(
            word
            for flag in command.flags
            if flag.kind != "bool" and not flag.implied
            for word in _spellings(flag)
        )
        cases.append(f"    {_quoted(path)}) flags={_quoted(words)} takes={_quoted(takes)} ;;")
        for flag in command.flags:
            if flag.completes:
                pattern = "|".join(_quoted(f"{path} {word}") for word in _spellings(flag))
                arguments.append(f"    {pattern}) {_bash_reply(flag.completes)} ;;")
        if command.completes:
            arguments.append(f"    {_quoted(path + ' ')}) {_bash_reply(command.completes)} ;;")
    groups = "\n".join(
        f"    {name}) words={_quoted(' '.join(_names(name)))} ;;" for name in command_table.groups()
    )
    both = [name for name in command_table.groups() if name in command_table.commands()]
    root = " ".join(
        word
        for flag in (*command_table.ROOT.flags, command_parser.HELP)
        for word in _spellings(flag)
    )
    return f"""# bash completion for jaula, made by `jaula completion bash`

_jaula_flags() {{
    case "$1" in
{chr(10).join(cases)}
    *) flags='--help' takes='' ;;
    esac
}}

_jaula_values() {{
    case "$1" in
{chr(10).join(arguments)}
    *) return 1 ;;
    esac
}}

_jaula() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local path='' words='' flags='' takes='' index=1 candidates='' word
    local both={_quoted(" ".join(both))}  # groups that are commands as well
    COMPREPLY=()
    while ((index < COMP_CWORD)); do
        word=${{COMP_WORDS[index]}}
        case "$word" in
        -H | --host) index=$((index + 1)) ;;
        -*) ;;
        *) path=$word; index=$((index + 1)); break ;;
        esac
        index=$((index + 1))
    done
    if [[ -z $path ]]; then
        COMPREPLY=($(compgen -W {_quoted(" ".join(_names("")) + " " + root)} -- "$current"))
        return
    fi
    case "$path" in
{groups}
    esac
    if [[ -n $words ]]; then
        if ((index >= COMP_CWORD)); then
            COMPREPLY=($(compgen -W "$words" -- "$current"))
            if ((${{#COMPREPLY[@]}})) || [[ " $both " != *" $path "* ]]; then
                return
            fi
        elif [[ " $both " != *" $path "* || " $words " == *" ${{COMP_WORDS[index]}} "* ]]; then
            path="$path ${{COMP_WORDS[index]}}"
        fi
    fi
    _jaula_flags "$path"
    if [[ " $takes " == *" $previous "* ]]; then
        _jaula_values "$path $previous" || COMPREPLY=($(compgen -f -- "$current"))
        return
    fi
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$current"))
        return
    fi
    _jaula_values "$path " || COMPREPLY=($(compgen -f -- "$current"))
}}

complete -F _jaula jaula
"""


def _bash_reply(completes: str | tuple[str, ...]) -> str:
    if completes == "file":
        return 'COMPREPLY=($(compgen -f -- "$current"))'
    if completes == "profile":
        return (
            f'COMPREPLY=($(compgen -W "{_profiles()}" -- "$current";'
            ' compgen -f -X "!*.toml" -- "$current"; compgen -d -S / -- "$current"; true))'
        )
    return f'COMPREPLY=($(compgen -W "{_values(completes)}" -- "$current"))'


def _all(command: command_parser.Command) -> list[command_parser.Flag]:
    return [*command.flags, command_parser.HELP]


# -- zsh ----------------------------------------------------------------------------------------


def _zsh() -> str:
    lines = []
    for path, command in _commands():
        specs = [_zsh_flag(flag) for flag in _all(command)]
        if command.completes:
            specs.append(_quoted(f"*:argument:{_zsh_action(command.completes)}"))
        else:
            specs.append("'*:file:_files'")
        lines.append(
            f"    {_quoted(path)})\n        _arguments -s "
            + " \\\n            ".join(specs)
            + " ;;"
        )
    words = " ".join(_quoted(f"{name}:{_summary(name)}".replace("\n", " ")) for name in _names(""))
    groups = "\n".join(
        f"    {group}) words=("
        + " ".join(
            _quoted(f"{name}:{command_table.load(f'{group} {name}').summary}")
            for name in _names(group)
        )
        + ") ;;"
        for group in command_table.groups()
    )
    name_functions = "\n".join(
        f'_jaula_{kind}() {{\n    local -a names=(${{(f)"$({query} 2>/dev/null)"}})\n'
        f"    compadd -a names\n}}\n"
        for kind, query in NAME_COMMANDS.items()
    )
    return f"""#compdef jaula
# zsh completion for jaula, made by `jaula completion zsh`

{name_functions}
_jaula() {{
    local path words_before=1
    local -a words_left
    integer at=2
    while ((at < CURRENT)) && [[ ${{words[at]}} == -* ]]; do
        [[ ${{words[at]}} == (-H|--host) ]] && ((at++))
        ((at++))
    done
    if ((at >= CURRENT)); then
        local -a commands=({words})
        _describe command commands
        return
    fi
    path=${{words[at]}}
    local -a words=("${{words[@]}}")
    local -a sub=()
    _jaula_group $path && sub=("${{reply[@]}}")
    if ((${{#sub}})); then
        if ((at + 1 >= CURRENT)); then
            _describe command sub
            return
        fi
        ((at++))
        path="$path ${{words[at]}}"
    fi
    words=("jaula" "${{words[@]:$at}}")
    ((CURRENT = CURRENT - at + 1))
    _jaula_command "$path"
}}

_jaula_group() {{
    local -a words
    case $1 in
{groups}
    *) return 1 ;;
    esac
    reply=("${{words[@]}}")
}}

_jaula_command() {{
    case $1 in
{chr(10).join(lines)}
    *) _files ;;
    esac
}}

_jaula_profile() {{
    local -a names=({_profiles()})
    _describe profile names
    _files -g '*.toml'
}}

_jaula "$@"
"""


def _summary(name: str) -> str:
    return command_table.groups().get(name) or command_table.load(name).summary


def _zsh_flag(flag: command_parser.Flag) -> str:
    text = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    repeated = "*" if flag.kind == "list" else ""
    value = (
        "" if flag.kind == "bool" or flag.implied else f":{flag.name}:{_zsh_action(flag.completes)}"
    )
    specs = [
        _quoted(f"{repeated}{word}{'=' if value and word.startswith('--') else ''}[{text}]{value}")
        for word in _spellings(flag)
    ]
    return " ".join(specs)


def _zsh_action(completes: str | tuple[str, ...]) -> str:
    if isinstance(completes, tuple):
        return f"({' '.join(completes)})"
    return (
        f"_jaula_{completes}"
        if completes in NAME_COMMANDS or completes == "profile"
        else "_files"
        if completes == "file"
        else " "
    )


# -- fish ---------------------------------------------------------------------------------------


def _fish() -> str:
    lines = [
        "# fish completion for jaula, made by `jaula completion fish`",
        "complete -c jaula -e",
        "complete -c jaula -f",
    ]
    top = f"not __fish_seen_subcommand_from {' '.join(_names(''))}"
    for flag in (*command_table.ROOT.flags, command_parser.HELP):
        lines.append(_fish_flag(flag, "__fish_use_subcommand"))
    for name in _names(""):
        lines.append(f"complete -c jaula -n {_quoted(top)} -a {name} -d {_quoted(_summary(name))}")
    for group in command_table.groups():
        inner = (
            f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from "
            + " ".join(_names(group))
        )
        for name in _names(group):
            text = _quoted(command_table.load(f"{group} {name}").summary)
            lines.append(f"complete -c jaula -n {_quoted(inner)} -a {name} -d {text}")
    for path, command in _commands():
        group, _, name = path.rpartition(" ")
        seen = f"__fish_seen_subcommand_from {name}"
        outside = f"not __fish_seen_subcommand_from {' '.join(command_table.groups())}"
        seen += f"; and __fish_seen_subcommand_from {group}" if group else f"; and {outside}"
        for flag in _all(command):
            lines.append(_fish_flag(flag, seen))
        if command.completes == "file":
            lines.append(f"complete -c jaula -n {_quoted(seen)} -F")
        elif command.completes:
            values = _fish_values(command.completes)
            lines.append(f"complete -c jaula -n {_quoted(seen)} -a {values}")
    return "\n".join(lines) + "\n"


def _fish_flag(flag: command_parser.Flag, condition: str) -> str:
    line = f"complete -c jaula -n {_quoted(condition)} -l {flag.name}"
    if flag.short:
        line += f" -s {flag.short}"
    line += f" -d {_quoted(flag.help)}"
    if flag.kind != "bool":
        line += " -r"
        if flag.completes == "file":
            line += " -F"
        elif flag.completes:
            line += f" -a {_fish_values(flag.completes)}"
    return line


def _fish_values(completes: str | tuple[str, ...]) -> str:
    if isinstance(completes, tuple):
        return _quoted(" ".join(completes))
    if completes == "profile":
        return _quoted(f"{_profiles()} (__fish_complete_suffix .toml)")
    return f'"({NAME_COMMANDS[completes]} 2>/dev/null)"'

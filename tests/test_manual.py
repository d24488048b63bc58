"""The reference, manual pages and completions are those of the declarations; shells complete by them at once."""

import os
import re
import shutil
import subprocess
import time

import pytest
from declarations import ALL, COMMANDS, ROOT, SCRIPTS

from manual import values, write
from toast.help import Page, meaning, term
from toast.options import Operand

SHARE = os.path.join(ROOT, "share")
PAGES = sorted({target.partition(":")[2] for target in SCRIPTS.values()})


def test_what_is_written_is_what_is_declared():
    """Otherwise: python -m manual.write"""
    texts = write.files()
    there = {
        os.path.relpath(os.path.join(folder, name), ROOT)
        for top in ("share", "docs/reference")
        for folder, _, names in os.walk(os.path.join(ROOT, top))
        for name in names
    }
    assert there == set(texts)
    for path, text in texts.items():
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            assert file.read() == text, f"{path} is stale: python -m manual.write"


def test_all_folders_are_installed():
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        told = file.read()
    for folder, _, names in os.walk(SHARE):
        assert not names or f'"{os.path.relpath(folder, ROOT)}" = ' in told, folder


# ---------------------------------------------------------------- manual pages


def rendered(name, *words):
    """The page as `man` shows it, without overstriking."""
    path = os.path.join(SHARE, "man", "man1", f"{name}.1")
    env = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    ran = subprocess.run(["man", "--warnings", *words, "-l", path], capture_output=True, env=env, timeout=60)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr.decode()
    return re.sub(".\b", "", ran.stdout.decode())


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="there is no man")
@pytest.mark.parametrize("name", PAGES)
def test_man(name):
    """Without a warning of groff's; every option and every example stands in it as it is typed."""
    told = rendered(name, "--no-hyphenation", "--no-justification")
    flat = " ".join(told.split())
    for page in (Page(ALL[name]), *Page(ALL[name]).commands):
        for p in page.parameters:
            assert " ".join(term(p).split()) in flat and " ".join(meaning(p).split()) in flat, p.name
        assert all(f" {line}\n" in told for example in page.examples for line in example.split("\n"))
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{heading}\n" in told


@pytest.mark.skipif(not shutil.which("mandoc"), reason="there is no mandoc")
def test_mandoc():
    """No complaint but those of style, and that an unreleased version has no date."""
    paths = [os.path.join(SHARE, "man", "man1", f"{name}.1") for name in PAGES]
    ran = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *paths], capture_output=True, text=True)
    assert not [line for line in ran.stdout.splitlines() if "missing date" not in line], ran.stdout


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="there is no man")
def test_man_finds_the_other_names():
    env = {**os.environ, "MANPATH": os.path.join(SHARE, "man"), "LC_ALL": "C.UTF-8"}
    for name in SCRIPTS:
        ran = subprocess.run(["man", name], capture_output=True, env=env, timeout=60)
        assert ran.returncode == 0 and b"EXIT STATUS" in ran.stdout and not ran.stderr, (name, ran.stderr)


# ---------------------------------------------------------------- completions


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with files, and a home with models; the environment that says so."""
    folder = tmp_path_factory.mktemp("here")
    for name in ("docs.db", "notes.txt", "a file.txt", "alpha/x", "home/.cache/toast/models/minilm@q6/x",
                 "home/.cache/huggingface/hub/models--org--tiny-bert/x",
                 "home/.cache/huggingface/hub/models--org--$(touch gone)/x",
                 "home/.ollama/models/manifests/registry.ollama.ai/library/tinyllama/latest"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "home/.cache/toast/aliases.json").write_text('{\n "chat": "org/tiny-bert",\n "t": "x"\n}')
    return folder


def env_of(here):
    gone = ("TOAST_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS", "HUGGINGFACE_HUB_CACHE")
    return {k: v for k, v in os.environ.items() if k not in gone} | {"HOME": str(here / "home"), "LC_ALL": "C.UTF-8"}


def of_bash(here, line):
    """What bash completes a line to, as its own completion machinery would ask."""
    script = r"""
    . "$1"
    eval "words=($2)"; [[ $2 == *' ' ]] && words+=('')
    COMP_WORDS=()
    cut() { COMP_WORDS+=("${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"); w=${BASH_REMATCH[3]}; }
    for w in "${words[@]}"; do  # as readline cuts words at = and :
        while [[ $w =~ ^(-[^=:]+)(=)(.*)$ || $w =~ ^([^:]+)(:)(.*)$ ]]; do cut; done
        COMP_WORDS+=("$w")
    done
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    function=$(complete -p "${COMP_WORDS[0]}"); function=${function##*-F }; ${function%% *} 2>/dev/null
    printf '%s\n' "${COMPREPLY[@]}"
    """
    path = os.path.join(SHARE, "bash-completion", "completions", line.split()[0])
    words = ["bash", "--norc", "-c", script, "bash", path, line]
    ran = subprocess.run(words, cwd=here, env=env_of(here), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and not ran.stderr, ran
    return set(ran.stdout.split("\n")) - {""}


ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=; fpath=('$1'/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u'
zpty -w z 'show() { zle list-choices; zle -R; print E''ND }; zle -N show; bindkey "^X" show'
zpty -w z 'stty columns 300; LISTMAX=10000 COLUMNS=300 LINES=999'
zpty -w z 'zle-line-init() { print REA''DY }; zle -N zle-line-init'
zpty -r z out '*READY*'
shift
for line; do
    zpty -w -n z $line$'\x18'
    zpty -r z out '*END*'
    print -r -- "$out"
    print NEXT
    zpty -w -n z $'\x15'
done
"""


def of_zsh(here, *lines):
    """What zsh lists for each line, of what it writes to a terminal."""
    words, env = ["zsh", "-f", "-c", ZSH, "zsh", SHARE, *lines], env_of(here) | {"TERM": "dumb"}
    ran = subprocess.run(words, cwd=here, env=env, capture_output=True, text=True, timeout=60)
    return ran.stdout.replace("\r", "").split("NEXT\n")[:-1]


def of_fish(here, line):
    code = "set -p fish_complete_path $argv[1]/fish/vendor_completions.d; complete -C $argv[2]"
    words = ["fish", "--no-config", "-c", code, SHARE, line]
    ran = subprocess.run(words, cwd=here, env=env_of(here), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and not ran.stderr, ran
    return {found.split("\t")[0] for found in ran.stdout.split("\n")} - {""}


HAVE = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]
ASK = {"bash": of_bash, "fish": of_fish}
NAMES = {"minilm", "e5", "smollm2", "minilm@q6", "org/tiny-bert", "chat", "t", "ollama:tinyllama:latest"}


@pytest.fixture(params=[shell for shell in ASK if shell in HAVE])
def ask(request, here):
    return lambda line: ASK[request.param](here, line)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_is_completed(ask, name):
    command = COMMANDS[SCRIPTS[name].partition(":")[2]]
    parts = {f"{name} {part} ": its for part, its in command.commands.items()} or {f"{name} ": command}
    for line, its in parts.items():
        flags = {flag for p in values.options(its) for flag in p.flags}
        assert {word for word in ask(line + "-") if word[0] == "-"} | ask(line + "--") == flags
        for p in values.options(its):
            if p.choices:
                assert ask(f"{line}{p.long} ") == set(p.choices), p.name
    if command.commands:
        assert ask(f"{name} ") >= set(command.commands)


def test_values(ask):
    assert ask("search --mode v") == {"vector"}
    assert ask("search --mode=v") in ({"vector"}, {"--mode=vector"})
    assert {"docs.db", "alpha"} <= {word.rstrip("/") for word in ask("search -i ")}
    assert "notes.txt" in ask("classify -L n")
    assert ask("search -k ") == set()
    assert {word.rstrip("/") for word in ask("index alp")} == {"alpha"}


def test_names_of_models(ask, here):
    assert ask("embed -m ") >= NAMES and not (here / "gone").exists()
    assert "org/tiny-bert" in ask("embed -m org/t") and "minilm@q6" in ask("model rm m")
    assert "ollama:tinyllama:latest" in ask("toast -m ollama:t") | {f"ollama:{w}" for w in ask("toast -m ollama:t")}
    assert ask("model path ch") == {"chat"}


def test_the_names_are_those_that_python_tells(here):
    from toast.command import Call
    from toast.store import inventory

    told = subprocess.run(["sh", "-c", values.MODELS], env=env_of(here), capture_output=True, text=True).stdout.split(
        "\n"
    )
    call = Call("model", env_of(here), None)
    assert {name for name in inventory.names(call) if "@" not in name} <= set(told) | {"org/$(touch gone)"}


@pytest.mark.skipif("zsh" not in HAVE, reason="there is no zsh")
def test_zsh(here):
    lines = ("search --", "search --mode ", "model ", "toast-embed -m ", "search -i ", "model rm --")
    options, modes, commands, names, indexes, of_rm = of_zsh(here, *lines)
    assert all(flag in options for p in values.options(COMMANDS["search"]) for flag in p.flags if flag[1] == "-")
    assert all(word in modes for word in ("hybrid", "vector", "lexical"))
    assert all(name in commands for name in COMMANDS["model"].commands)
    assert all(name in names for name in NAMES) and not (here / "gone").exists()
    assert "docs.db" in indexes and "notes.txt" not in indexes
    assert "--dry-run" in of_rm and "--json" not in of_rm


@pytest.mark.skipif("zsh" not in HAVE, reason="there is no zsh")
def test_zsh_takes_what_is_written():
    for name in os.listdir(os.path.join(SHARE, "zsh", "site-functions")):
        ran = subprocess.run(["zsh", "-n", os.path.join(SHARE, "zsh", "site-functions", name)], capture_output=True)
        assert ran.returncode == 0 and not ran.stderr, ran.stderr


def test_operands_are_completed_by_what_they_are():
    """A declaration without a kind of value gets none by oversight."""
    known = {"FILE", "PATH", "MODEL", "TARGET", "INSTRUCTION", "QUERY", "NAME"}
    assert {p.metavar for one in ALL.values() for p in one.parameters if isinstance(p, Operand)} == known


@pytest.mark.skipif("bash" not in HAVE, reason="there is no bash")
def test_bash_is_quick(here):
    """`search -<TAB>` without Python: the file read and all options told, within 60 ms of a shell's own start."""
    times = {}
    for line in ("true", '. "$0"; COMP_WORDS=(search -); COMP_CWORD=1; _toast_search 2>/dev/null'):
        path = os.path.join(SHARE, "bash-completion", "completions", "search")
        found = []
        for _ in range(9):
            start = time.perf_counter()
            subprocess.run(["bash", "--norc", "-c", line, path], check=True)
            found.append(time.perf_counter() - start)
        times[line] = sorted(found)[2]
    assert max(times.values()) - min(times.values()) < 0.06

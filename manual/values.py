"""What may stand for a value on a command line, as completions need it: one answer for all shells."""

from toast.options import HELP, VERSION, Operand

# Names of models that are here, in POSIX shell without single quotes: no Python starts. toast/store/inventory.py knows
# all of them; what it needs files' contents for, LM Studio's and llama.cpp's, is left out here.
MODELS = r"""
store=${TOAST_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/toast}
hub=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}}
ollama=${OLLAMA_MODELS:-$HOME/.ollama/models}/manifests/registry.ollama.ai/library
printf "%s\n" minilm e5 smollm2
for f in "$store"/models/*@*; do [ -d "$f" ] && echo "${f##*/}"; done
for f in "$hub"/models--*--*; do [ -d "$f" ] && f=${f##*/models--} && echo "${f%%--*}/${f#*--}"; done
for f in "$ollama"/*/*; do [ -f "$f" ] && f=${f#"$ollama"/} && echo "ollama:${f%/*}:${f#*/}"; done
[ -r "$store"/aliases.json ] && sed -n "s/^ *\"\([^\"]*\)\": .*/\1/p" "$store"/aliases.json
""".strip()


def kind(parameter):
    """ "flag", "choices", "models", "indexes", "folders", "files", or "text", of which nothing is known."""
    if parameter.type is bool:
        return "flag"
    if parameter.choices:
        return "choices"
    names = {part.strip("@") for part in parameter.metavar.split("|")}
    for name, found in (("MODEL", "models"), ("INDEX", "indexes"), ("FOLDER", "folders")):
        if name in names:
            return found
    return "files" if names & {"FILE", "PATH", "TARGET"} else "text"


def options(command):
    """The options of a command, those of all commands last."""
    return [p for p in command.parameters if not isinstance(p, Operand)] + [HELP, VERSION]


def operands(command):
    """[(name, kind, whether there may be many)]."""
    return [(p.metavar, kind(p), p.many) for p in command.parameters if isinstance(p, Operand)]

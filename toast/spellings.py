"""What other programs call our options and commands, and what to type here instead. Data, and how it is looked up.

Answers are options, as a command line has them, or a hint in words. Sources: the manuals of grep, ripgrep, llm, ollama,
llama.cpp, sentence-transformers, fzf, jq and xargs.
"""

OPTIONS = {  # command, or * for those that have no answer of their own: {options of others: answer}
    "*": {
        "--print0 -print0 --zero -z --null-data --read0 --nul --zero-terminated": "-0",
        "--ndjson --json-lines --jsonlines --json-input --input-jsonl": "--jsonl",
        "--key --column --text-field --text-column --content-field --json-field": "--field NAME",
        "--csv --tsv --delimiter --separator": "--jsonl; docs/recipes.md makes JSON lines of CSV",
        "--silent": "-q",
        "--debug --trace": "TOAST_DEBUG=1 in the environment",
        "--model-name --model-path --model-id --model_name_or_path --hf-repo --repo -hf": "-m MODEL",
        "--output-json --as-json --json-output": "--json",
        "--output --output-file --out -o": "> FILE; the answer goes to standard output",
        "--input --input-file --file --files --in -i": "a FILE is named without an option, or comes by < FILE",
        "--batch-size --batchsize": "--batch N",
        "--threads --num-threads --jobs -j -T": "TOAST_THREADS=N in the environment",
        "--device --gpu --cpu --ngl -ngl --n-gpu-layers --gpu-layers": "there is nothing to choose; MLX takes what there is",
        "--ctx-size --num-ctx --n-ctx --context-length": "there is nothing to set; a model's whole context is used",
        "--host --port --server --url --api-key --token": "there is no server; models run here",
        "--keep-alive --keepalive": "--warm TIME",
        "--daemon --background": "-p toasted",
        "--offline --local-files-only": "HF_HUB_OFFLINE=1 in the environment",
        "--recursive -r -R": "files are named: FOLDER/*, or find FOLDER -type f -exec ... {} +",
        "--colour": "--color",
        "--exit-code --fail": "--strict",
        "--usage -? -help": "--help",
        "-V": "--version",
    },
    "toast": {
        "--temp --temparature --heat": "--temperature",
        "-N --num --limit --tokens --length --max-length --max-new-tokens --num-predict --n-predict --predict --max-output-tokens": "-n N",
        "--topp --nucleus": "--top-p",
        "--topk": "--top-k",
        "--repetition-penalty --frequency-penalty --presence-penalty --penalty": "--repeat-penalty",
        "--prompt --instruction --ask -i --message": 'the instruction needs no option: toast "..."',
        "--input --input-file --files --attachment --attach -a --fragment --image": "-f FILE",
        "--system-prompt --sys -sys --system-message": "-s TEXT",
        "--stream --no-stream": "answers are streamed, to a terminal a piece at a time",
        "--json-schema --format-schema -j": "--schema",
        "--format": "--json; --schema is for an answer that is JSON",
        "--gbnf --grammar-file --lark": "--grammar",
        "--choices --options --one-of": "--choice",
        "--pattern --regexp": "--regex",
        "--chat --conversation --continue -c --cid --thread --history": "--session NAME",
        "--stop-sequence --stop-word --reverse-prompt --until": "--stop",
        "--code --code-block --extract-code -e": "-x",
        "--best-of --n-samples --num-samples --n-best --num-return-sequences": "--samples K",
        "--lora --lora-file --peft": "--adapter",
        "--reasoning --reasoning-effort --thinking --hide-thinking": "--think on|off|N",
        "--lines --per-line --map --each-line --batch": "--each",
        "--raw --no-chat-template --completion": "--no-template",
        "--chat-template-kwargs --template-kwargs --option --param": "--template KEY=VALUE",
        "--echo --passthrough --tee": "--repeat-input",
        "--on-error": "with --each a bad record has an empty answer, and the status is 2 at the end",
        "--cache-type-k --cache-type-v --kv-cache": "--kv-bits",
        "--truncate": "--long truncate",
        "--verbose-prompt --show-prompt --print-prompt": "--dry-run",
    },
    "tokenize": {
        "--max-tokens --limit --truncate --head -n -N": "--max N",
        "--chunk --chunk-size --size": "--split N",
        "--length --num --len -c --number --wc": "--count",
        "--detokenize --to-text -d": "--decode",
        "--file --files -f": "a FILE is named without an option, or comes by < FILE",
        "--special-tokens --add-special-tokens": "--special",
        "--json --jsonl": "tokenize without options writes JSON lines",
    },
    "embed": {
        "--format": "--json; or --raw, without them it is .npy",
        "--dimensions --dimension --dim --truncate-dim --size": "--dims",
        "--dtype --quantize --quantization --type --encoding-format": "--precision",
        "--normalize --normalized --normalize-embeddings": "vectors have length 1 anyway; --no-normalize leaves them",
        "--prompt --prompt-name --query --document --task --input-type --kind": "--as query|document",
        "--binary": "--precision binary; --raw writes bare rows",
        "--truncate --trunc": "--long truncate",
        "--concat --merge --cat": "--join",
        "--ids --id": "--json; its lines have the other fields",
    },
    "index": {
        "--recursive -r -R": "a directory is read with all that is below it",
        "--db --database --out --output-file --create": "-o FILE",
        "--update-index --sync --refresh --incremental": "-u FILE",
        "--format": "FILEs are told apart by themselves; --jsonl, --parquet for records",
        "--ignore --skip --exclude-dir --not": "--exclude GLOB",
        "--include --glob -g --ext --extension --type -t": "find . -name GLOB -print0 | index -0 --files-from -",
        "--max-size --max-file-size --size-limit": "--max-filesize",
        "--chunk-size --chunk-lines --split-by": "--chunk auto|paragraphs|lines",
        "--join --combine": "--merge",
        "--shards --parts": "--split N",
        "--all -a --no-ignore": "--hidden",
        "--from --from-file --file-list -T --files0-from": "--files-from",
        "--key --primary-key --pk": "--id NAME",
        "--float32 --full": "--exact",
    },
    "search": {
        "--recursive -r -R": "a directory is read with all that is below it",
        "--limit --top --top-k --topk --top_n --top-n --num --number --max-results --results --count-max --max-count": "-k N",
        "-n -N": "paths and lines are written anyway; -k N: at most N hits",
        "--format": "--json; without it PATH:LINE:TEXT",
        "--exclude --exclude-dir --ignore --not --iglob": "--path '!GLOB'",
        "--include --glob -g --type -t --filter --ext": "--path GLOB",
        "--meta --metadata --filter-by --having": "--where FIELD=VALUE",
        "--query -e --regexp --pattern -F -E -G -P --fixed-strings --extended-regexp --perl-regexp --pcre2":
            'the query is in plain words and needs no option: search "..."',
        "--ignore-case --case-sensitive -s -S -y --smart-case -w --word-regexp -x --line-regexp":
            "words are found in any case and form",
        "--line-number --with-filename -H --heading --column --vimgrep":
            "paths and lines are written anyway, as grep does",
        "--no-heading --no-line-number --no-filename": "a line is PATH:LINE:TEXT; cut -d: -f3- leaves the text, --json has it apart",
        "-a -I --binary --binary-files": "binary files are passed over",
        "--unrestricted -u -uu --no-ignore --hidden": "index --hidden . > x.db has the hidden files, too",
        "--multiline -U": "a section is searched as a whole",
        "--only-matching -o": "lines are written whole; to a file: > FILE",
        "--files-without-match -L": "-l; it lists the files with hits",
        "--sort --sortr": "the best hits come first",
        "--files-with-match --files --names --list": "-l",
        "--min-score --score-threshold --cutoff --distance --similarity": "--threshold S",
        "--db --database --db-path --collection": "-i FILE",
        "--semantic --vec --dense --sem --embedding": "--mode vector",
        "--bm25 --fts --keyword --lex --sparse --exact": "--mode lexical",
        "--hybrid": "--mode hybrid; it is the default",
        "--reranker --rerank-with --cross-encoder": "--rerank --rerank-model MODEL",
        "--show-scores --score": "--scores",
        "--similar --similar-to --more-like-this --mlt": "--like FILE",
        "--duplicates --dedup --dedupe --near-duplicates --uniq": "--dupes",
        "--after": "-A N",
        "--before": "-B N",
        "--around --lines-context": "-C N",
        "--full --content --text": "--json; its lines have the whole text",
        "--questions --query-file --batch -f": "--queries FILE",
    },
    "rerank": {
        "--limit --top --top-k --topk --top-n --num --head -n -N": "-k N",
        "--format": "--json; without it the records as they came",
        "--query -Q": 'the query needs no option: rerank "..."',
        "--min-score --score-threshold --cutoff": "--threshold S",
        "--score --show-scores --with-scores -s": "--scores",
        "--logits --no-sigmoid --raw": "--raw-scores",
        "--truncate": "--long truncate",
        "--group-by --partition": "--group FIELD",
        "--prompt --task": "--instruction TEXT",
    },
    "classify": {
        "--limit --top --top-k --topk --top-n --num -n -N": "-k N",
        "--format": "--json; without it LABEL<TAB>SCORE<TAB>RECORD",
        "--categories --classes --class --candidates --candidate-labels --choices --tags --into": "-l A,B,C",
        "--labels-file --labels-from --label-list": "-L FILE",
        "--train --fit --examples --learn-from": "--learn FILE -o PROBE",
        "--eval --evaluate --test --accuracy": "--report FILE",
        "--multi-label --multilabel": "--multi",
        "--cluster --clusters --topics": "--group K",
        "--min-score --score-threshold --cutoff --confidence": "--threshold S",
        "--default --fallback --other --unknown": "--none NAME",
        "--filter --match --grep": "--only LABEL",
        "--invert-match": "--invert",
        "--template --hypothesis-template": "--hypothesis TEXT",
        "--active --uncertain --sample": "--next N",
    },
}  # fmt: skip

COMMANDS = {  # of `model` and `toasted`
    "ls": "list list-models models dir", "rm": "remove delete uninstall del prune",
    "pull": "fetch get download install add", "show": "info inspect describe card", "verify": "check fsck",
    "alias": "name aliases rename cp", "path": "where which", "convert": "export import create",
    "quantize": "quantise quant", "run": "start serve daemon up", "stop": "kill quit down shutdown",
    "status": "ps list ls info",
}  # fmt: skip

VERBS = {  # of programs that are one command, as instructions of `toast`: what does it here; NAME is the word after it
    "list ls models list-models": "model ls", "pull fetch download install": "model pull NAME",
    "rm remove delete uninstall": "model rm NAME", "show inspect": "model show NAME",
    "run": 'toast -m NAME "..."', "chat repl": 'toast --session NAME "..."', "ps status": "toasted status",
    "serve server daemon start": "nothing has to be started; toasted run stays loaded", "stop": "toasted stop",
    "quantize": "model quantize --help", "convert": "model convert --help", "help": "toast --help",
    "version": "toast --version", "index": "index --help", "search": "search --help", "embed": "embed --help",
    "rerank": "rerank --help", "classify": "classify --help", "tokenize": "tokenize --help",
}  # fmt: skip


def verb(word: str, name: str = "NAME") -> str:
    """What to type for another program's command, "" where that is none."""
    told = next((answer for words, answer in VERBS.items() if word in words.split()), "")
    return told.replace("NAME", name)


def option(command: str, word: str) -> str:
    """What to type for another program's option, "" where that is not known; `command` may be `model ls`."""
    for part in (command, "*"):
        for words, answer in OPTIONS.get(part, {}).items():
            if word in words.split():
                return answer
    return ""


def known(command: str) -> list[str]:
    """All options of others that have an answer for this command."""
    return [word for part in (command, "*") for words in OPTIONS.get(part, {}) for word in words.split()]


def command(word: str) -> list[str]:
    """Commands of groups that others call so."""
    return [name for name, words in COMMANDS.items() if word in words.split()]


def command_words() -> list[str]:
    """All of these words."""
    return [word for words in COMMANDS.values() for word in words.split()]

#!/bin/sh
# What `make try` shows: five notes, some feedback and a log, searched, ranked, sorted and asked about.
set -e
db=$(mktemp)
trap 'rm -f "$db"' EXIT
cd "$(dirname "$0")/../examples"

show() {
    printf '\n\033[1m$ %s\033[0m\n' "$1"
    eval "$1"
}

show 'search -k 2 "how do I get back data that was deleted" notes'
show 'search -q "the height of the Eiffel tower" notes || echo "not in these notes"'
show 'index notes > "$db"'
show 'search -k 5 "the disk is full" < "$db" | rerank -k 1 "the disk is full"'
show 'classify -L labels.txt feedback.txt'
show 'classify --group 4 feedback.txt'
show 'echo "Olga Petrova, born in 1984, lives in Oslo" | toast --schema form.json'
show 'embed < feedback.txt | wc -c'
printf '\nMore: docs/recipes.md. On your own PATH: PATH="%s:$PATH"\n' "$(cd ../.venv/bin && pwd)"

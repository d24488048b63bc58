#!/bin/sh
# What `make try` shows: this repository's own documents, indexed, searched, ranked and asked about.
set -e
db=$(mktemp)
trap 'rm -f "$db"' EXIT
question="what happens when the reader of the output goes away?"

show() {
    printf '\n$ %s\n' "$1"
    eval "$1"
}

show 'index README.md docs > "$db"'
show 'search -k 3 "$question" < "$db"'
show 'search -k 10 --json "$question" < "$db" | rerank -k 1 --field text --json "$question" | cut -c1-200'
show 'search -k 1 --json "$question" < "$db" | toast -n 60 "$question Answer in one sentence."'
show 'printf "the build is broken since yesterday\nplease add a dark mode\n" | classify -l "bug,feature request,question"'
show 'embed < README.md | wc -c'

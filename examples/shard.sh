#!/bin/sh
# One shard: shard.sh IN.jsonl OUT.npy [embed's options]. It is done when OUT.npy exists; run it again as often as you like.
set -eu
in="$1" out="$2"
shift 2
test -e "$out" && exit
trap 'rm -f "$out.$$"' EXIT
embed --jsonl "$@" < "$in" > "$out.$$"
mv "$out.$$" "$out"

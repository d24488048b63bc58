#!/bin/sh
# One shard: shard.sh IN.jsonl OUT.npy [embed's options]. It is done when OUT.npy exists; run it again as often as you like.
set -eu
in="${1:?usage: shard.sh IN.jsonl OUT.npy}" out="${2:?usage: shard.sh IN.jsonl OUT.npy}"
shift 2
test -e "$out" && exit
trap 'rm -f "$out.part"' EXIT
trap 'exit 130' HUP INT TERM
embed --jsonl "$@" < "$in" > "$out.part" || { echo "shard.sh: $in is not done" >&2; exit 1; }
mv "$out.part" "$out"

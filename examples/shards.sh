#!/bin/sh
# Every shard of a folder, as many at once as there are cores: shards.sh IN OUT [embed's options]
# After a kill, or on more machines with a part of the shards each, run it again: what is done stays done.
set -eu
here=$(dirname "$0") in="${1:?usage: shards.sh IN OUT}" out="${2:?usage: shards.sh IN OUT}"
shift 2
test -d "$in" || { echo "shards.sh: $in is no folder" >&2; exit 2; }
mkdir -p "$out"
export TOAST_THREADS=1
todo() { find "$in" -maxdepth 1 -type f -name '*.jsonl' -exec basename {} .jsonl \; | sort | tr '\n' '\0'; }
if command -v parallel > /dev/null; then
    todo | parallel -0 -j "$(nproc)" "$here/shard.sh" "$in/{}.jsonl" "$out/{}.npy" "$@"
else
    todo | xargs -0 -I {} -P "$(nproc)" "$here/shard.sh" "$in/{}.jsonl" "$out/{}.npy" "$@"
fi

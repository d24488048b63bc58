#!/bin/sh
# Every shard of a folder, as many at once as there are cores: shards.sh IN OUT [embed's options]
# After a kill, or with the same folders on more machines, run it again: what is done stays done.
set -eu
here=$(dirname "$0") in="$1" out="$2"
shift 2
mkdir -p "$out"
export TOAST_THREADS=1
todo() { find "$in" -type f -name '*.jsonl' -exec basename {} .jsonl \; | sort; }
if command -v parallel > /dev/null; then
    todo | parallel -j "$(nproc)" "$here/shard.sh" "$in/{}.jsonl" "$out/{}.npy" "$@"
else
    todo | xargs -I {} -P "$(nproc)" "$here/shard.sh" "$in/{}.jsonl" "$out/{}.npy" "$@"
fi

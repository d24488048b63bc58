# fish completion of embed; written from the declarations by manual.write
function __toast_models
    command sh -c 'store=${TOAST_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/toast}
hub=${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}}
ollama=${OLLAMA_MODELS:-$HOME/.ollama/models}/manifests/registry.ollama.ai/library
printf "%s\\n" minilm e5 smollm2
for f in "$store"/models/*@*; do [ -d "$f" ] && echo "${f##*/}"; done
for f in "$hub"/models--*--*; do [ -d "$f" ] && f=${f##*/models--} && echo "${f%%--*}/${f#*--}"; done
for f in "$ollama"/*/*; do [ -f "$f" ] && f=${f#"$ollama"/} && echo "ollama:${f%/*}:${f#*/}"; done
[ -r "$store"/aliases.json ] && sed -n "s/^ *\\"\\([^\\"]*\\)\\": .*/\\1/p" "$store"/aliases.json'
end

complete -c embed -s m -l model -r -a '(__toast_models)' -d 'A name, a folder, org/name. [default: minilm, $EMBED_MODEL]'
complete -c embed -l as -x -a 'query document' -d 'Use the model\'s prompt for queries or for documents. [default: document]'
complete -c embed -l long -x -a 'truncate error mean' -d 'What to do with records over the model\'s limit; mean: in pieces, averaged. [default: truncate]'
complete -c embed -l batch -x -d 'Records computed at once. [at least 1, default: 128]'
complete -c embed -l dims -x -d 'Cut vectors to this many numbers and renormalise. [at least 1, default: all]'
complete -c embed -l precision -x -a 'f32 f16 int8 binary' -d 'Type of the numbers. [default: f32]'
complete -c embed -l no-normalize -d 'Leave the vectors\' lengths as the model gives them.'
complete -c embed -l json -d 'Write JSON lines: {"index", "embedding"}.'
complete -c embed -l raw -d 'Write bare little-endian rows, without a header; these may be concatenated.'
complete -c embed -l join -d 'FILEs are .npy, @LIST names some: write the rows of all.'
complete -c embed -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c embed -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c embed -l parquet -d 'FILEs are Parquet; --field names the column with the text, article.body one that is called so.'
complete -c embed -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c embed -l on-error -x -a 'skip warn stop' -d 'A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2. [default: stop]'
complete -c embed -l source -x -d 'What standard input is called in the answer, as a shard is.'
complete -c embed -l start -x -d 'The number of the first record. [from 0 to 9007199254740992, default: 0]'
complete -c embed -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c embed -s v -l verbose -d 'Say more on standard error.'
complete -c embed -l no-input -d 'Do not read standard input.'
complete -c embed -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c embed -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c embed -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c embed -s h -l help -d 'Write this help.'
complete -c embed -l version -d 'Write the version.'

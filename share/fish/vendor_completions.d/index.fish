# fish completion of index; written from the declarations by manual.write
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

complete -c index -s o -l output -r -k -a '(__fish_complete_suffix .db)' -d 'Build INDEX, replacing it when all is done.'
complete -c index -s u -l update -r -k -a '(__fish_complete_suffix .db)' -d 'Bring INDEX up to date, or make it; embeds only new text.'
complete -c index -s m -l model -r -a '(__toast_models)' -d 'Embedding model; -u keeps to its own. [default: $EMBED_MODEL, else minilm]'
complete -c index -l chunk -x -a 'auto paragraphs lines' -d 'Cut files at sections (logs at entries), at paragraphs or at lines. [default: auto]'
complete -c index -l exact -d 'Keep float32 vectors too; the index is five times as large.'
complete -c index -l merge -d 'PATHs are indexes, @LIST names some: join them.'
complete -c index -l split -x -d 'PATH is an index: make N of it, FILE-1.db to FILE-N.db of -o FILE. [at least 2]'
complete -c index -l files-from -r -d 'Read the names of all files from FILE (-: standard input), one a line (-0: NUL). With -u, others are dropped.'
complete -c index -l exclude -x -d 'Skip files and folders like GLOB, as of search --path. [repeatable]'
complete -c index -l hidden -d 'Hidden files and folders, too; what .gitignore and .ignore name stays out, unless it is named.'
complete -c index -l max-filesize -x -d 'Skip larger files. [at least 1, default: 16]'
complete -c index -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c index -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c index -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c index -l id -x -d 'The field that identifies a record; implies --jsonl.'
complete -c index -l parquet -d 'FILEs are Parquet; --field names the column with the text, article.body one that is called so.'
complete -c index -l on-error -x -a 'skip warn stop' -d 'A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2. [default: stop]'
complete -c index -l source -x -d 'What standard input is called in the answer, as a shard is.'
complete -c index -l start -x -d 'The number of the first record. [from 0 to 9007199254740992, default: 0]'
complete -c index -l empty-ok -d 'No records are no failure: status 0, as of a shard that has none; records without an answer are still 1.'
complete -c index -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c index -s v -l verbose -d 'Say more on standard error.'
complete -c index -l no-input -d 'Do not read standard input.'
complete -c index -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c index -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c index -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c index -s h -l help -d 'Write this help.'
complete -c index -l version -d 'Write the version.'

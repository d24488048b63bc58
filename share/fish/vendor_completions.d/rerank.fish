# fish completion of rerank; written from the declarations by manual.write
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

complete -c rerank -s m -l model -r -a '(__toast_models)' -d 'A cross-encoder, Qwen3-Reranker, late-interaction or embedding model: a name, a folder. [default: minilm, $RERANK_MODEL]'
complete -c rerank -l instruction -x -d 'What counts as an answer (Qwen3-Reranker).'
complete -c rerank -l long -x -a 'best truncate error' -d 'Records over the model\'s limit; best: the best of their windows. [default: best]'
complete -c rerank -l query-field -x -d 'Take the query from this field instead; implies --jsonl.'
complete -c rerank -l group -x -d 'Rank the records apart that differ in this field; implies --jsonl.'
complete -c rerank -s k -x -d 'Only the best N records of each query. [at least 1, default: all]'
complete -c rerank -l threshold -x -d 'Only records that score at least S, with --raw-scores in logits. What is enough depends on model and texts: --scores shows it; in logs .02 is much, in passages of one subject .2.'
complete -c rerank -l scores -d 'Write SCORE<TAB>RECORD; scores are from 0 to 1.'
complete -c rerank -l raw-scores -d 'As --scores, with the model\'s logit as the score.'
complete -c rerank -l json -d 'Write JSON lines: {"index", "score", "text"}.'
complete -c rerank -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c rerank -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c rerank -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c rerank -l on-error -x -a 'skip warn stop' -d 'A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2. [default: stop]'
complete -c rerank -l empty-ok -d 'No records are no failure: status 0, as of a shard that has none; records without an answer are still 1.'
complete -c rerank -l start -x -d 'The number of the first record. [from 0 to 9007199254740992, default: 0]'
complete -c rerank -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c rerank -s v -l verbose -d 'Say more on standard error.'
complete -c rerank -l no-input -d 'Do not read standard input.'
complete -c rerank -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c rerank -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c rerank -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c rerank -s h -l help -d 'Write this help.'
complete -c rerank -l version -d 'Write the version.'

# fish completion of classify; written from the declarations by manual.write
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

complete -c classify -s l -l labels -x -d 'The labels; \\, is a comma within one.'
complete -c classify -s L -l label-file -r -d 'Labels, one on each line: label, or label: description (\\: is a colon within one); after a tab, the least score.'
complete -c classify -s m -l model -r -a '(__toast_models)' -d 'A classifier, an NLI model, an LLM, an embedding model or a probe of --learn. [default: minilm, $EMBED_MODEL]'
complete -c classify -l multi -d 'A record may have any number of labels: those that score at least the threshold.'
complete -c classify -l threshold -x -d 'Only labels that score at least S. [default: none; 0.5 of --multi]'
complete -c classify -l none -x -d 'The label of records that no label is given, under a threshold or --multi.'
complete -c classify -l hypothesis -x -d 'What an NLI model tests, {} for the label. [default: This example is {}.]'
complete -c classify -l long -x -a 'best mean truncate error' -d 'Records over the model\'s limit: each label\'s best score in their pieces, or the mean. [default: best]'
complete -c classify -s k -x -d 'Write the best N labels of each record, a line for each. [at least 1, default: 1]'
complete -c classify -l only -x -d 'Write the bare records with this label, as grep would. [repeatable]'
complete -c classify -l invert -d 'With --only: the records without it.'
complete -c classify -s c -l count -d 'Write the number of records: with --only, else of each label.'
complete -c classify -l json -d 'Write JSON lines: {"label", "score", "labels", "text"}, and "index" with --start.'
complete -c classify -l learn -r -d 'Learn a probe from JSON lines {"text", "label" or "labels"}, label<TAB>text lines or a folder; needs -o.'
complete -c classify -s o -l output -r -d 'Where --learn writes the probe.'
complete -c classify -l report -r -d 'Accuracy, calibration and confusions on examples, as --learn reads them.'
complete -c classify -l errors -d 'With --report: each mistake, by file and line.'
complete -c classify -l next -x -d 'Write the N records to label next: uncertain ones, and unlike. [at least 1]'
complete -c classify -l group -x -d 'Put the records into K groups: their size, words and typical record. [at least 1]'
complete -c classify -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c classify -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c classify -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c classify -l on-error -x -a 'skip warn stop' -d 'A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2. [default: stop]'
complete -c classify -l empty-ok -d 'No records are no failure: status 0, as of a shard that has none; records without an answer are still 1.'
complete -c classify -l parquet -d 'FILEs are Parquet; --field names the column with the text, article.body one that is called so.'
complete -c classify -l source -x -d 'What standard input is called in the answer, as a shard is.'
complete -c classify -l start -x -d 'The number of the first record. [from 0 to 9007199254740992, default: 0]'
complete -c classify -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c classify -s v -l verbose -d 'Say more on standard error.'
complete -c classify -l no-input -d 'Do not read standard input.'
complete -c classify -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c classify -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c classify -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c classify -s h -l help -d 'Write this help.'
complete -c classify -l version -d 'Write the version.'

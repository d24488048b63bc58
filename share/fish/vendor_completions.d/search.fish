# fish completion of search; written from the declarations by manual.write
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

complete -c search -s i -l index -r -k -a '(__fish_complete_suffix .db)' -d 'An index, or @LIST of some. [repeatable]'
complete -c search -l queries -r -d 'Answer each query of FILE: a line, or a JSON object with a text. Hits have its number before them, from 0 on, and a colon.'
complete -c search -l like -r -d 'In place of QUERY: what is like the text of FILE (-: standard input).'
complete -c search -l dupes -d 'In place of QUERY: groups of what says nearly the same; each line of a FILE is a record.'
complete -c search -l path -x -d 'Only files and folders of this name, or path if GLOB has a slash: \'docs\', \'*.{md,txt}\', \'./docs/*\', \'!*.log\'. More than one add up. [repeatable]'
complete -c search -l where -x -d 'Only records with this value; also !=, <, <=, >, >=, and author.name. More than one: with all of them. [repeatable]'
complete -c search -l mode -x -a 'hybrid vector lexical' -d 'How hits are ranked. [default: hybrid]'
complete -c search -s k -x -d 'At most N hits for a query; of --dupes, N groups. [at least 1, default: 10; all of --dupes]'
complete -c search -l threshold -x -d 'Only hits that score at least S, from 0 to 1 but of --mode lexical; 0: all. Of --dupes, the cosine. [default: a floor for the best hit; 0.95 of --dupes]'
complete -c search -l per-file -x -d 'At most N hits of a file. [at least 1, default: any number]'
complete -c search -l rerank -d 'Sort the best hits again by a model that looks at each of them with the query.'
complete -c search -l rerank-model -r -a '(__toast_models)' -d 'The model of --rerank. [default: minilm, $RERANK_MODEL]'
complete -c search -s m -l model -r -a '(__toast_models)' -d 'Where to find the embedding model of the index. [default: its name]'
complete -c search -s l -l files-with-matches -d 'Print the paths of the best -k files that answer, copies too.'
complete -c search -s c -l count -d 'Print each path with the number of its hits that answer, among the -k best.'
complete -c search -s A -l after-context -x -d 'Lines after the best line. [at least 0]'
complete -c search -s B -l before-context -x -d 'Lines before the best line. [at least 0]'
complete -c search -s C -l context -x -d 'Lines around the best line. [at least 0]'
complete -c search -l json -d 'Write JSON lines: {"path", "start_line", "end_line", "line", "score", "text"}.'
complete -c search -l scores -d 'Write SCORE<TAB> before each hit.'
complete -c search -l explain -d 'Write the scores of the vector and of the words, too.'
complete -c search -l color -x -a 'auto always never' -d 'Colours, and on a terminal links to the files. [default: auto]'
complete -c search -l lines -d 'Each line of a FILE is a record, as of standard input.'
complete -c search -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c search -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c search -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c search -l on-error -x -a 'skip warn stop' -d 'A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2. [default: stop]'
complete -c search -s q -l quiet -d 'No hits on standard output, no warnings: the status is the answer, as of grep -q.'
complete -c search -s v -l verbose -d 'Say more on standard error.'
complete -c search -l no-input -d 'Do not read standard input.'
complete -c search -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c search -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c search -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c search -s h -l help -d 'Write this help.'
complete -c search -l version -d 'Write the version.'

# fish completion of tokenize; written from the declarations by manual.write
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

complete -c tokenize -s m -l model -r -a '(__toast_models)' -d 'A name, a folder, a .gguf file, org/name or ollama:name. [default: smollm2, $TOAST_MODEL]'
complete -c tokenize -l ids -d 'Write token ids only, one a line.'
complete -c tokenize -l count -d 'Write the number of tokens; of several FILEs COUNT<TAB>FILE, and a total.'
complete -c tokenize -l decode -d 'Read ids, write their text.'
complete -c tokenize -l max -x -d 'Write the text\'s beginning, at most N tokens. [at least 1]'
complete -c tokenize -l split -x -d 'Write pieces of at most N tokens. [at least 1]'
complete -c tokenize -l special -d 'With the tokens that the model puts around a text.'
complete -c tokenize -s 0 -l null -d 'With --split: pieces end in NUL instead of a line break.'
complete -c tokenize -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c tokenize -s v -l verbose -d 'Say more on standard error.'
complete -c tokenize -l no-input -d 'Do not read standard input.'
complete -c tokenize -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c tokenize -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c tokenize -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c tokenize -s h -l help -d 'Write this help.'
complete -c tokenize -l version -d 'Write the version.'

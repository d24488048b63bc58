# fish completion of toast; written from the declarations by manual.write
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

complete -c toast -s m -l model -r -a '(__toast_models)' -d 'A name, a folder, a .gguf file, org/name or ollama:name. [default: smollm2, $TOAST_MODEL]'
complete -c toast -l adapter -x -a '(__fish_complete_directories)' -d 'A LoRA adapter of the model, MLX-LM\'s or PEFT\'s; -m takes one, too.'
complete -c toast -l kv-bits -x -a '8 4' -d 'Keep what was read in fewer bits, for long contexts.'
complete -c toast -l no-cache -d 'Neither look for nor keep what was read of a prompt.'
complete -c toast -s f -l file -r -d 'A file to read, under its name. [repeatable]'
complete -c toast -s s -l system -r -d 'System prompt.'
complete -c toast -l session -x -d 'Go on with the conversation of this name.'
complete -c toast -l forget -d 'With --session: forget what was said; an INSTRUCTION begins anew.'
complete -c toast -l think -x -d 'Whether to reason before the answer; N: in so many tokens at most.'
complete -c toast -l template -x -d 'A variable of the chat template, as JSON or text. [repeatable]'
complete -c toast -l no-template -d 'Give the text as it is, without chat template.'
complete -c toast -l long -x -a 'error truncate' -d 'What becomes of a prompt over the model\'s context; truncate cuts the middle of the longest of standard input and FILEs. [default: error]'
complete -c toast -l dry-run -d 'Only write the prompt and tell of its tokens; loads no weights.'
complete -c toast -s n -l max-tokens -x -d 'Tokens of the answer, at most; that it was cut there, -v and --strict tell. [at least 1, default: what the context holds]'
complete -c toast -l prefill -x -d 'How the answer begins.'
complete -c toast -l stop -x -d 'End the answer before this text. [repeatable]'
complete -c toast -s x -l extract -d 'Print only the first fenced code block.'
complete -c toast -l json -d 'Write {"text", "finish_reason", "prompt_tokens", "tokens", "logprob"}; with --jsonl, a record\'s own "text" is kept as "input" (or "input2", ... where that is taken).'
complete -c toast -l logprobs -x -d 'Implies --json: each token with its logprob and K alternatives. [at least 0]'
complete -c toast -l samples -x -d 'K answers, a line each, with seeds from --seed on; over temperature 0 they differ. [at least 1, default: 1]'
complete -c toast -l repeat-input -d 'Write standard input as it came, then the answer, as editors\' filters want it.'
complete -c toast -l no-loop-stop -d 'Let an answer go on that only repeats itself.'
complete -c toast -l schema -r -d 'The answer is JSON that is valid by this schema; an object has the properties that are named and no others, unless additionalProperties is there, or objects are put together (allOf, oneOf).'
complete -c toast -l regex -x -d 'The answer matches this regular expression, in which \\d, \\w and \\s are ASCII.'
complete -c toast -l choice -r -d 'The answer is one of these; a FILE holds one a line.'
complete -c toast -l grammar -r -d 'The answer follows this Lark grammar.'
complete -c toast -s t -l temperature -x -d '0: always the likeliest token; over 0: drawn, the higher the freer. [at least 0, default: as the model\'s files say]'
complete -c toast -l top-p -x -d 'Draw from the likeliest tokens that hold P. [from 0 to 1]'
complete -c toast -l top-k -x -d 'Draw from the K likeliest tokens. [at least 0]'
complete -c toast -l min-p -x -d 'Drop tokens under P times the likeliest. [from 0 to 1]'
complete -c toast -l repeat-penalty -x -d 'Over 1: tokens seen so far, prompt included, get less likely. [at least 0.01]'
complete -c toast -l dry -x -d 'Over 0: a token that would repeat the answer loses X, and more the longer it repeats; not in constraints. [at least 0]'
complete -c toast -l seed -x -d 'Another seed, another draw. [from 0 to 18446744073709551615, default: 0]'
complete -c toast -l each -d 'Every record of FILEs, else of standard input, is a question, every answer a line; of a blank or bad one an empty line, and bad ones are told, with status 2 at the end.'
complete -c toast -s 0 -l null -d 'Records end in NUL instead of a line break, in and out.'
complete -c toast -l jsonl -d 'Records are JSON objects, one on each line.'
complete -c toast -l field -x -d 'The field that holds the text, as body or article.body; implies --jsonl. [default: text]'
complete -c toast -s q -l quiet -d 'Print nothing but errors on standard error.'
complete -c toast -s v -l verbose -d 'Say more on standard error.'
complete -c toast -l no-input -d 'Do not read standard input.'
complete -c toast -l strict -d 'End with status 3 when an input or an answer was cut.'
complete -c toast -s p -x -a 'toasted here' -d 'Run in the warm process, which is started where there is none; or here. [default: there if one is found]'
complete -c toast -l warm -x -d 'Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none. [$TOAST_WARM]'
complete -c toast -s h -l help -d 'Write this help.'
complete -c toast -l version -d 'Write the version.'

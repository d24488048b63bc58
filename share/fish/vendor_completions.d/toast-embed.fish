complete -c toast-embed -w embed

complete -c toast-tokenize -w tokenize

complete -c toast-search -w search

complete -c toast-index -w index

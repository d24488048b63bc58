complete -c toast-generate -w toast

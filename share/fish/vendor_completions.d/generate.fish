complete -c generate -w toast

complete -c toast-model -w model

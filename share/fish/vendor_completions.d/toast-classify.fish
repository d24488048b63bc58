complete -c toast-classify -w classify

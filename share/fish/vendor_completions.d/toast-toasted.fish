complete -c toast-toasted -w toasted

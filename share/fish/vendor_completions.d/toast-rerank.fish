complete -c toast-rerank -w rerank

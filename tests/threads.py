"""Functions on threads of their own, all begun at once."""

import threading


def together(*functions, turns=None):
    """What each gives, or the error that it raises; turns: called again and again, it gives a list."""
    found, start = [None] * len(functions), threading.Barrier(len(functions))

    def work(n):
        start.wait()
        try:
            found[n] = functions[n]() if turns is None else [functions[n]() for _ in range(turns)]
        except Exception as error:
            found[n] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found

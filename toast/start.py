"""Imported first by every `cli.py`: until a command runs, Ctrl-C ends it without a word, as it ends grep.

Python's own handler would raise KeyboardInterrupt in the middle of an import and print where.
"""

from _signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal

if getsignal(SIGINT) is default_int_handler:  # what a caller ignores (nohup, a script's &) stays ignored
    signal(SIGINT, SIG_DFL)

"""Whole processes, cold, in turn (A B A B ...): median, best and peak memory of each shell command.

cold.py [--turns 5] 'embed < line.txt' 'rerank query < few.txt' ...
Ratios are to the first. A command's own output is dropped; one that fails is named with its status.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def once(command):
    """Seconds and peak megabytes (of the largest process) of a shell command."""
    start = time.perf_counter()
    child = subprocess.Popen(command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        print(f"status {os.waitstatus_to_exitcode(status)}: {command}", file=sys.stderr)
    return seconds, usage.ru_maxrss / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    for command in args.commands:
        once(command)  # the page cache
    rows = {command: [] for command in args.commands}
    for _ in range(args.turns):
        for command, row in rows.items():
            row.append(once(command))
    first = None
    for command, row in rows.items():
        seconds = [s for s, _ in row]
        median = statistics.median(seconds)
        first = first or median
        memory = max(mb for _, mb in row)
        print(f"{median:8.3f} s  best {min(seconds):6.3f}  {memory:6.0f} MB  x{median / first:5.2f}  {command}")


main()

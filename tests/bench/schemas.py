"""Random schemas by the installed command on its default model: what comes out validates, or nothing does.

    python tests/bench/schemas.py [--count 200] [-n 256]

Prints how many ended in which status; ends with status 1 where an answer did not validate.
"""

import argparse
import collections
import json
import os
import random
import subprocess
import sys

import jsonschema

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from test_constrain import a_schema  # noqa: E402

PROMPTS = ["Describe a cat.", "Who wrote Hamlet, and when?", "List three colours.", "", "ünïcode 天空?", "1 + 1 ="]


def one(seed, limit):
    """(status, whether what came out is as it must be)."""
    schema, prompt = a_schema(random.Random(seed)), PROMPTS[seed % len(PROMPTS)]
    words = ["toast", "--no-input", "-q", "-n", str(limit), "--schema", json.dumps(schema), prompt or "Answer."]
    ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if ran.returncode:
        return ran.returncode, ran.returncode == 2 and ran.stdout == b""
    try:
        jsonschema.validate(json.loads(ran.stdout), schema)
    except (ValueError, jsonschema.ValidationError):
        return 0, False
    return 0, True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("-n", type=int, default=256)
    args = parser.parse_args()
    found = collections.Counter(one(seed, args.n) for seed in range(args.count))
    for (status, right), count in sorted(found.items()):
        print(f"{count:4} of {args.count}: status {status}, {'as it must be' if right else 'WRONG'}")
    return any(not right for _, right in found)


if __name__ == "__main__":
    sys.exit(main())

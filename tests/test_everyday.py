"""Everyday commands on the default model, without -n: each ends by itself, soon, and says nothing over and over."""

import json

import pytest
from command import command

from toast.generation.repetition import Repetition
from toast.generation.tokenizer import Tokenizer

LIMIT = 700  # tokens within which every answer ends
COPIES, LEAST = 2, 32  # more copies than that after the first, of that many tokens together, are a cycle

DIFF = """\
diff --git a/m.py b/m.py
index 4693ad3..95fb899 100644
--- a/m.py
+++ b/m.py
@@ -1,2 +1,6 @@
 def add(a, b):
+    \"\"\"Sum of two numbers.\"\"\"
     return a + b
+
+def sub(a, b):
+    return a - b
"""
RENAME = """\
diff --git a/config.yml b/config.yml
--- a/config.yml
+++ b/config.yml
@@ -3,5 +3,5 @@ server:
   host: 0.0.0.0
-  port: 8080
-  workers: 2
+  port: 9090
+  workers: 8
   timeout: 30
"""
DISKS = """\
Filesystem               Size  Used Avail Use% Mounted on
devtmpfs                  12G     0   12G   0% /dev
tmpfs                     24G     0   24G   0% /dev/shm
/dev/vda                 252G   39G   63G  39% /
/dev/vdb1                500G  471G   29G  95% /srv/backup
tmpfs                     12G     0   12G   0% /sys/fs/cgroup
"""
LOG = """\
44aa7fb kernels: remember short forms, look them up and take temporary memory in one place each
352c949 docs: this day's second table, and quality
4423382 kernels: compile headers as one, and operations a quarter faster
6873c1b kernels: hold buffers while layers run, texts side by side causal everywhere
8713202 kernels: all of a model's decoder layers as one operation
19fb1d4 kernels: keep keys and values of quantised layers as float16
e30825d docs: name all runs of decoding
bd74833 kernels: leave far activations floats, so that a row's unit suits the others
f942ca3 kernels: spread what a single row asks for, and ask for a task's first panel
"""
CODE = '''\
class Session:
    """The conversation called `name`: a plain JSONL file of messages."""

    def __init__(self, folder, name):
        if not name or name.startswith(".") or "/" in name:
            raise ValueError(f"{name!r} is not a plain name")
        self.path = os.path.join(folder, f"{name}.jsonl")

    def read(self):
        """The messages so far."""
        try:
            with open(self.path) as file:
                return [json.loads(line) for line in file if line.strip()]
        except FileNotFoundError:
            return []

    def add(self, messages):
        """Append messages, in one write."""
        with open(self.path, "a") as file:
            file.write("".join(json.dumps(m) + "\\n" for m in messages))

    def forget(self):
        """Delete the conversation."""
        os.unlink(self.path)
'''
MAIL = """\
Dear team, the printer on the second floor is broken again. A technician comes on Tuesday at ten. Until then please
use the one beside the kitchen, and do not open the paper tray: it sticks. Whoever printed 400 pages of a football
calendar yesterday may collect them from my desk. Best, Marta
"""
PAGES = """\
The lighthouse stood on the northern cliff for two hundred years. Its keepers wrote down every storm in a thick book,
and every ship that passed. When the light became automatic, the last keeper took the book to the library of the town,
where children still read in it about the winter of 1871, in which the sea froze as far as the islands.
"""
ERRORS = """\
Nov 29 10:01:12 web nginx[812]: connect() failed (111: Connection refused) while connecting to upstream
Nov 29 10:01:13 web nginx[812]: connect() failed (111: Connection refused) while connecting to upstream
Nov 29 10:01:15 web systemd[1]: app.service: Main process exited, code=killed, status=9/KILL
Nov 29 10:01:15 web kernel: Out of memory: Killed process 1432 (python3) total-vm:8123456kB
Nov 29 10:01:20 web systemd[1]: app.service: Scheduled restart job, restart counter is at 3.
"""
SALES = (
    "month,region,sold\nJanuary,north,120\nJanuary,south,80\nFebruary,north,95\nFebruary,south,140\nMarch,north,150\n"
)
PEOPLE = "Anna Berg, 34, Oslo\nJohn Smith, 51, Leeds\nMei Lin, 28, Taipei\n"
LISTING = "-rw-r--r-- 1 anna staff  1204 Nov 12 notes.txt\n-rwxr-xr-x 1 anna staff 88120 Nov 14 build.sh\n"

TWELVE = [
    ("write a commit message", DIFF), ("which disk is fullest?", DISKS), ("explain", CODE),
    ("write release notes", LOG), ("write a haiku about pipes", ""), ("summarise", PAGES),
    ("explain this error log", ERRORS), ("translate to French", MAIL), ("make it shorter", MAIL),
    ("a commit message for this diff", RENAME), ("list the names", PEOPLE), ("what does this change do?", RENAME),
]  # fmt: skip
THIRTY = [
    ("summarise in three bullet points", PAGES), ("write a title for this", PAGES), ("write a poem about this", PAGES),
    ("continue the story", PAGES), ("who took the book?", PAGES), ("translate to German", PAGES),
    ("rewrite in simple words", PAGES), ("ask five questions about this text", PAGES), ("answer politely", MAIL),
    ("what has to be done, and when?", MAIL), ("is this mail angry?", MAIL), ("fix the spelling", "i has went home\n"),
    ("what is wrong here?", ERRORS), ("what should I do next?", ERRORS), ("count the errors", ERRORS),
    ("write unit tests", CODE), ("write a docstring for each method", CODE), ("find bugs", CODE),
    ("rewrite in JavaScript", CODE), ("which month was best?", SALES), ("make a table of this", SALES),
    ("turn this into JSON", PEOPLE), ("who is the oldest?", PEOPLE), ("which file is largest?", LISTING),
    ("write a changelog", LOG), ("group these commits", LOG), ("list ten animals", ""),
    ("write a limerick about a cat", ""), ("how do I undo the last git commit?", ""), ("say hello a hundred times", ""),
]  # fmt: skip


def cycles(ids):
    """(period, tokens) of what is said again and again."""
    text, found = Repetition(), set()
    for id in ids:
        text.add(id)
        found |= {(d, run) for d, run in text.runs.items() if run >= max(COPIES * d, LEAST)}
    return found


def test_cycles_are_found():
    assert cycles([*range(20), *[1, 2, 3] * 12]) and cycles([*range(40)] * 3)
    assert not cycles([*range(50), *range(50)]) and not cycles([1] * LEAST)


@pytest.mark.model
@pytest.mark.long
@pytest.mark.parametrize("instruction, text", [*TWELVE, *THIRTY])
def test_an_everyday_command_ends_by_itself(instruction, text, real, smollm2):
    ran = command("toast", "--json", "--strict", instruction, stdin=text.encode(), env=real, timeout=300).ok()
    answer = json.loads(ran.out)
    assert answer["finish_reason"] == "stop" and answer["tokens"] < LIMIT, ran
    assert not cycles(Tokenizer(smollm2).encode(answer["text"])), ran
    print(answer["tokens"], instruction)

"""Reasoning comes before the answer: constraints wait for it, budgets end it, prefills skip it."""

import json
import os
import re
import shutil

import pytest
from command import command

from toast.generation.constrain import Unfinished
from toast.generation.reasoning import AfterReasoning, ReasoningMarks

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
QWEN = os.path.join(ORACLES, "qwen3-causal")
SIZE, BEGIN, END, EOS, CHANNEL, FINAL = 12, 8, 9, 10, 7, 6


class Guide:
    """A constraint that allows one token, and is done after two of them."""

    def __init__(self, limit, only=1):
        self.limit, self.only, self.taken = limit, only, []

    def allowed(self):
        return marks().mask([self.only])

    def least(self):
        return 0

    watchful = False

    def accept(self, token):
        self.taken.append(token)

    def done(self):
        return len(self.taken) == 2

    def hurry(self):
        self.limit = 0

    def check(self):
        if not self.done():
            raise Unfinished("guide")


def marks(begin=(BEGIN,), end=(END,), close=None):
    return ReasoningMarks([*begin], [*end], [*(close or end)], ends=[EOS], size=SIZE)


def allowed(guide):
    found = guide.allowed()
    return None if found is None else [i for i, yes in enumerate(found.tolist()) if yes]


def test_a_constraint_waits_for_reasoning_that_the_prompt_began():
    guide = AfterReasoning(marks(), limit=40, inside=True, make=Guide)
    assert allowed(guide) == [i for i in range(SIZE) if i != EOS] and not guide.done()
    for token in (3, 4, END):
        guide.accept(token)
    assert allowed(guide) == [1] and guide.guide.limit == 37
    guide.accept(1)
    with pytest.raises(Unfinished, match="guide"):
        guide.check()
    guide.accept(1)
    assert guide.done()
    guide.check()


def test_the_model_begins_with_reasoning_or_with_the_answer():
    guide = AfterReasoning(marks(), limit=40, make=Guide)
    assert allowed(guide) == [1, BEGIN]
    guide.accept(1)
    assert allowed(guide) == [1] and guide.guide.taken == [1]
    guide = AfterReasoning(marks(), limit=40, make=Guide)
    guide.accept(BEGIN)
    assert len(allowed(guide)) == SIZE - 1
    with pytest.raises(Unfinished, match="the answer's limit of 40 tokens ended its reasoning: a larger -n"):
        guide.check()


def test_marks_of_several_tokens():
    """The end mark may come at once where it begins the answer."""
    harmony = marks(begin=(CHANNEL, 2, 3), end=(CHANNEL, FINAL, 3), close=(5, CHANNEL, FINAL, 3))
    guide = AfterReasoning(harmony, limit=40, make=Guide)
    steps = []
    for token in (CHANNEL, 2, 3, 4, CHANNEL, FINAL, 3, 1):
        steps.append(allowed(guide))
        guide.accept(token)
    assert steps[:3] == [[1, CHANNEL], [2, FINAL], [3]] and steps[-1] == [1] and guide.guide.taken == [1]
    guide = AfterReasoning(harmony, limit=40, make=Guide)
    for token in (CHANNEL, FINAL, 3):
        guide.accept(token)
    assert allowed(guide) == [1]


def test_a_constrained_answer_is_left_room():
    guide = AfterReasoning(marks(), limit=8, inside=True, make=Guide)
    for token in (2, 2, 2):
        assert allowed(guide) != [END]
        guide.accept(token)
    assert allowed(guide) == [END]
    guide.accept(END)
    assert guide.guide.limit == 4
    assert allowed(AfterReasoning(marks(), limit=2, make=Guide)) == [1]  # no room to begin it


@pytest.mark.parametrize("inside", [True, False])
def test_a_budget_ends_reasoning(inside):
    guide = AfterReasoning(marks(close=(5, END)), limit=40, inside=inside, budget=2)
    assert allowed(guide) is None
    for token in ([] if inside else [BEGIN]) + [2, 3]:
        guide.accept(token)
    assert allowed(guide) == [5]
    guide.accept(5)
    assert allowed(guide) == [END]
    guide.accept(END)
    assert allowed(guide) is None and not guide.done()
    guide.check()


def test_a_cycle_ends_the_reasoning_first():
    guide = AfterReasoning(marks(), limit=40, inside=True, make=Guide)
    guide.accept(2)
    guide.hurry()
    assert allowed(guide) == [END] and not guide.idle
    guide.accept(END)
    guide.hurry()
    assert guide.guide.limit == 0 and not guide.idle
    guide = AfterReasoning(marks(), limit=40, inside=True, budget=9)
    assert not guide.idle
    guide.accept(END)
    assert guide.idle  # the text's own end is all there is


# ---------------------------------------------------------------- the command

OPENS = """{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{{- '<|im_start|>assistant\\n' }}{% if enable_thinking is not defined or enable_thinking %}{{- '<think>\\n' }}
{%- else %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{- mood }}"""


@pytest.fixture
def model(tmp_path):
    shutil.copytree(QWEN, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(OPENS)
    return str(tmp_path / "model")


def toast(model, *words, **options):
    return command("toast", "-m", model, *words, **options)


def test_a_limit_that_ends_the_reasoning_is_told(model):
    ran = toast(model, "-n", "6", "hi")
    said = b"toast: the answer's limit of 6 tokens ended its reasoning: a larger -n\n"
    assert ran.status == 0 and ran.out == b"\n" and ran.err.endswith(b"\n" + said), ran
    assert toast(model, "-n", "6", "--strict", "hi").status == 3
    ran = toast(model, "-n", "6", "--each", stdin=b"one\ntwo\n")
    assert ran.out == b"\n\n" and ran.err.count(b"of 6 tokens ended its reasoning") == 2, ran
    ran = toast(model, "--each", stdin=b"one " * 1000)  # which leaves little of the context
    assert b"ended its reasoning" in ran.err and b"stopped at the token limit" not in ran.err, ran
    toast(model, "-n", "6", "-q", "hi").ok()


def test_a_prefill_begins_the_answer(model):
    ran = toast(model, "-n", "6", "--prefill", "Sure", "hi").ok()
    assert ran.out.startswith(b"Sure")
    closed = json.loads(toast(model, "-n", "1", "--prefill", "Sure", "--json", "hi").ok().out)
    off = json.loads(toast(model, "-n", "1", "--think", "off", "--prefill", "Sure", "--json", "hi").ok().out)
    assert off == closed
    assert toast(model, "-n", "6", "--prefill", "<think>\n", "hi").ok().out.startswith(b"<think>\n")


def test_think(model):
    usual = json.loads(toast(model, "-n", "6", "--json", "-q", "hi").out)
    on = json.loads(toast(model, "-n", "6", "--json", "-q", "--think", "on", "hi").out)
    off = json.loads(toast(model, "-n", "6", "--json", "--think", "off", "hi").ok().out)
    assert usual == on and off["text"] and off["prompt_tokens"] > on["prompt_tokens"]
    same = toast(model, "-n", "6", "--json", "--template", "enable_thinking=false", "hi").ok().out
    assert json.loads(same) == off
    budget = toast(model, "-n", "9", "--json", "--think", "2", "hi")
    found = json.loads(budget.out)
    assert budget.status == 0 and found["tokens"] == 9 and found["text"] and b"limit" not in budget.err, budget
    toast(model, "--think", "no", "hi").fails("--think must be on, off or a number of tokens, not 'no'")


def test_think_off_closes_what_the_template_opens(model):
    (lambda path: open(path, "w").write(OPENS.replace("enable_thinking", "unknown")))(f"{model}/chat_template.jinja")
    assert json.loads(toast(model, "-n", "6", "--json", "--think", "off", "hi").ok().out)["text"]


def test_variables_of_the_template(model):
    counts = [json.loads(toast(model, "-n", "1", "--json", "-q", *words, "hi").out)["prompt_tokens"]
              for words in ([], ["--template", "mood="], ["--template", "mood=very very glad"])]  # fmt: skip
    assert counts[0] == counts[1] < counts[2]
    toast(model, "--template", "mood", "hi").fails("--template 'mood' is not KEY=VALUE")
    toast(model, "--no-template", "--template", "mood=x", "hi").fails("exclude each other")


@pytest.mark.parametrize("words", [[], ["--think", "3"], ["--think", "off"], ["--template", "enable_thinking=false"]])
def test_a_constraint_after_reasoning(model, words):
    ran = toast(model, "-n", "40", "--regex", "[0-9]{3}x", *words, "hi")
    assert ran.status == 0 and re.fullmatch(rb"[0-9]{3}x\n", ran.out), ran
    reasoned = not words or words[1] == "3"
    assert bool(ran.err) == reasoned and ran.err.endswith(b"\n" * reasoned), ran
    ran = toast(model, "-n", "40", "--each", "--choice", "yes,no", *words, stdin=b"one\ntwo\n")
    assert ran.status == 0 and re.fullmatch(rb"((yes|no)\n){2}", ran.out), ran

"""Chat templates against the reference texts in tests/oracles and against jinja2 itself."""

import json
import os
import subprocess
import sys
from binascii import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toast.errors import BadInput, BadModel
from toast.generation.chat_template import Template, environment, message

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
SMOLLM2 = os.path.join(ORACLES, "smollm2")


def facts(name, file="oracle.json"):
    with open(os.path.join(ORACLES, name, file), encoding="utf-8") as f:
        return json.load(f)


@pytest.mark.parametrize("name", ["llama-causal", "qwen3-causal", "llama3-rope-causal"])
def test_reference_texts(name, tmp_path):
    template = Template(os.path.join(ORACLES, name))
    chats = [chat for chat in facts(name)["chats"] if chat["add_generation_prompt"]]
    assert chats
    for chat in chats * 2:  # the second time from the cache
        assert template.render(chat["messages"], str(tmp_path)) == chat["text"]


def test_default_model_texts(tmp_path):
    template = Template(SMOLLM2)
    for chat in facts("smollm2", "chats_oracle.json") * 2:
        assert template.render(chat["messages"], str(tmp_path)) == chat["rendered"]


CONTENT = st.text(st.sampled_from("ab \n{}%<|im_end|>\0 1é"), max_size=12)
ROLES = st.sampled_from(["system", "user", "assistant"])


@given(st.lists(st.builds(lambda r, c: {"role": r, "content": c}, ROLES, CONTENT), min_size=1, max_size=5))
def test_remembered_pieces_are_what_jinja_renders(tmp_path_factory, messages):
    template, cache = Template(SMOLLM2), str(tmp_path_factory.getbasetemp() / "chat")
    assert template.render(messages, cache) == template._render(messages)


def test_a_known_prompt_needs_no_jinja(tmp_path):
    code = (
        "import sys; from toast.generation.chat_template import Template;"
        "Template(sys.argv[1]).render([{'role': 'user', 'content': 'hi'}], sys.argv[2]); print('jinja2' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code, SMOLLM2, str(tmp_path)], capture_output=True, text=True)
            for _ in range(2)]  # fmt: skip
    assert [run.stdout.strip() for run in runs] == ["True", "False"], runs


# templates, and whether what they come to is kept for other contents
KEPT = [
    "{% for m in messages %}{{ m.role + ': ' + m['content'] ~ '\n' }}{% endfor %}",
    "{{ messages[0].content }}{% for m in messages[1:] %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}{{ bos_token }}",
    "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "{% for m in messages %}{{ m.content.strip() }}{% endfor %}",
    "{% for m in messages %}{% if m.content %}x{% endif %}{% endfor %}",
    "{% for m in messages %}{% if '1' in m.content %}x{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% set c = m.content %}{{ c }}{% endfor %}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m.content.startswith('a') and not m.content.endswith('b') %}x{% endif %}{% endfor %}",
    "{% set x %}{{ messages[0].content }}{% endset %}{{ x }}{{ messages | length }}",
    "{% macro f(m) %}<{{ m.content }}>{% endmacro %}{{ f(messages[0]) }}",
    "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    "{{ 'x' if messages[0].content == 'b' else 'c' }}{{ 'y' if 'b' != messages[0].content }}",
    "{% for m in messages if m.content %}x{% endfor %}",
    "{% set n = namespace(c='') %}{% for m in messages %}{% set n.c = m.content %}{% endfor %}{{ n.c }}",
    "{{ (messages | selectattr('role', 'equalto', 'user') | list | last).content }}",
]
LOOKING = [
    "{% for m in messages %}{{ m }}{% endfor %}",
    "{% for m in messages %}{{ m[m.content] }}{% endfor %}",
    "{% for m in messages %}{% filter upper %}{{ m.content }}{% endfilter %}{% endfor %}",
    "{% set x %}{{ messages[0].content }}{% endset %}{{ x | length }}",
    "{% macro f(m) %}{{ m.content }}{% endmacro %}{{ f(messages[0]) | trim }}",
    "{% set all = messages %}{{ all[0].content | length }}",
    "{{ messages | tojson }}",
    "{{ messages[-1].content[0] }}",
    "{% for a in messages %}{% for b in a.content %}{{ b }}{% endfor %}{% endfor %}",
    "{{ strftime_now('%Y') }}{{ messages[0].content }}",
    "{{ 'x' if messages[0].content in 'abc' else messages[0].content }}",
    "{{ 'x' if (messages[0].content + '!') == 'b!' else 'c' }}",
    "{{ 'x' if (messages[0].content ~ '!').startswith('a') else 'c' }}",
    "{{ 'x' if 'abc'.startswith(messages[0].content) else 'c' }}",
    "{{ 'x' if 'abc'.count(messages[0].content) else 'c' }}",
    "{{ '%s!' % messages[0].content }}",
    "{{ '{}!'.format(messages[0].content) }}",
    "{{ messages[0].content.replace('a', 'b') }}",
    "{{ messages | map(attribute='content') | join(',') }}",
    "{{ messages[0].content | int }}",
    "{{ 'x' if messages[0].content is in ['a', 'b'] else 'c' }}",
    "{{ 'x' if messages[0].content < 'b' else 'c' }}",
    "{{ {messages[0].content: 1} }}",
    "{{ messages[0].content * 2 }}",
    "{{ [messages[0].content] | string }}",
]
OTHERS = ["{{ 'x' if messages[0].content == messages[-1].content else 'c' }}"]  # it depends on how many there are


def learnt(source, folder, messages):
    """The template's folder with what is kept of these messages, and whether something is."""
    (folder / "chat_template.jinja").write_text(source)
    template, cache = Template(str(folder)), folder / "cache"
    assert template.render(messages, str(cache)) == template._render(messages)
    return template, [json.loads(path.read_bytes())["cases"] for path in cache.glob("*")]


@pytest.mark.parametrize("source", KEPT)
def test_templates_whose_questions_are_noted(source, tmp_path):
    _, kept = learnt(source, tmp_path, [{"role": "user", "content": "hi"}])
    assert kept and kept[0], source


@pytest.mark.parametrize("source", LOOKING)
def test_templates_that_look_further_into_contents(source, tmp_path):
    _, kept = learnt(source, tmp_path, [{"role": "user", "content": "hi"}])
    assert kept == [None], source


def test_a_damaged_file_counts_as_none(tmp_path):
    template, [_] = learnt(KEPT[3], tmp_path, [{"role": "user", "content": "hi"}])
    [path] = (tmp_path / "cache").glob("*")
    found = json.loads(path.read_bytes())
    for cases in ([[[[0, "eq", [], True]], ["x"]]], [[[[0, "len", ["a"], True]], ["x"]]], [[[], [1]]], [1], "x", {},
                  [[[[[], "eq", ["a"], True]], ["x"]]], [[[[0, ["eq"], ["a"], True]], ["x"]]]):  # fmt: skip
        path.write_text(json.dumps(found | {"cases": cases, "sum": crc32(repr(cases).encode())}))
        assert template.render([{"role": "user", "content": "a"}], str(tmp_path / "cache")) == "a"


def test_chance_is_not_kept(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ range(1000) | random }}{{ messages[0].content }}")
    template, cache = Template(str(tmp_path)), tmp_path / "cache"
    assert len({template.render([{"role": "user", "content": "hi"}], str(cache)) for _ in range(20)}) > 1


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([*KEPT, *LOOKING, *OTHERS]),
    st.lists(st.lists(CONTENT, min_size=2, max_size=2), min_size=4, max_size=8),
)
def test_what_is_kept_is_what_jinja_renders(tmp_path_factory, source, chats):
    """Whatever the contents are, and whatever was learnt of others before."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "chat_template.jinja").write_text(source)
    template = Template(str(folder))
    for contents in chats:
        messages = [{"role": role, "content": c} for role, c in zip(("user", "assistant"), contents, strict=True)]
        try:
            expected = template._render(messages)
        except (BadInput, BadModel):  # no number, say
            continue
        assert template.render(messages, str(folder / "cache")) == expected


def render(source, messages=({"role": "user", "content": "hi"},), **variables):
    return environment().from_string(source).render(messages=list(messages), **variables)


def test_environment():
    assert render("{{ x | tojson }}", x={"é": "<&>"}) == '{"é": "<&>"}'
    assert render("  {% if true %}\nx\n  {% endif %}\n") == "x\n"
    assert render("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "1"
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}!") == "hi!"
    assert render("{{ strftime_now('%Y') }}").isdigit()


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ x.__globals__ }}"])
def test_sandbox(tmp_path, source):
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(BadInput, match="refuses"):
        Template(str(tmp_path)).render([{"role": "user", "content": "hi"}])


def test_refused_and_broken(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system, please') }}")
    with pytest.raises(BadInput, match="no system, please"):
        Template(str(tmp_path)).render([{"role": "system", "content": "x"}], str(tmp_path / "cache"))
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(BadModel, match="broken"):
        Template(str(tmp_path)).render([])


def test_sources(tmp_path):
    assert Template(str(tmp_path)).source is None
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}]
    config = {"chat_template": named, "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Template(str(tmp_path)).render([]) == "D<s>"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert Template(str(tmp_path)).render([]) == "file"


def test_message():
    assert message("text\n", "explain") == "text\n\nexplain"
    assert message("", "explain") == "explain"
    assert message("text\n\n", "") == "text"
    assert message("in", "do", [("a.txt", "A\n"), ("b", "B")]) == "in\n\n==> a.txt <==\nA\n\n==> b <==\nB\n\ndo"

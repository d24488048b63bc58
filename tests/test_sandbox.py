"""Chat templates of strangers: what they may take is bounded, and what they render stays jinja2's."""

import json

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from toast.errors import BadModel
from toast.generation import sandbox
from toast.generation.chat_template import Template, environment

HI = [{"role": "user", "content": "hi"}]
GROWS = "{{% set ns = namespace(x={}) %}}{{% for i in range(60) %}}{{% set ns.x = {} %}}{{% endfor %}}{{{{ ns.x }}}}"
HUGE = {
    "product": "{{ 'a' * 10**9 }}",
    "list product": "{{ ['a'] * 10**9 }}",
    "power": "{{ 10 ** (10**8) }}",
    "printf width": "{{ '%0999999999d' % 1 }}",
    "printf star": "{{ '%*d' % (10**10, 1) }}",
    "format width": "{{ '{:>9999999999}'.format('a') }}",
    "format nested width": "{{ '{:{w}}'.format('a', w=10**10) }}",
    "join": "{{ (['a' * 100000] * 100000) | join }}",
    "join method": "{{ ('b' * 10**6).join(['a'] * 10**5) }}",
    "text of a list": "{{ (['a' * 100000] * 100000) | string }}",
    "center": "{{ 'a' | center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "expandtabs": "{{ ('\t' * 1000).expandtabs(10**9) }}",
    "translate": "{{ ('a' * 10**6).translate({97: 'b' * 10**6}) }}",
    "indent": "{{ 'a' | indent(10**10, true) }}",
    "replace": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "filter block": "{% filter replace('a', 'b' * 10**6) %}{{ 'a' * 10**6 }}{% endfilter %}",
    "wordwrap": "{{ ('a ' * 10**6) | wordwrap(1) }}",
    "slice": "{{ ('a' * 10) | slice(10**9) | list }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list | length }}",
    "bytes": "{{ (5).to_bytes(10**10, 'big') }}",
    "round": "{{ 5 | round(-10**9) }}",
    "sum of lists": "{{ ([[1] * 4000] * 4000) | sum(start=[]) }}",
    "map": "{{ ([none] * 99999) | map('default', 'a' * 99999, true) | join }}",
    "tilde": GROWS.format("'a'", "ns.x ~ ns.x"),
    "plus": GROWS.format("'a'", "ns.x + ns.x"),
    "square": GROWS.format("2", "ns.x * ns.x"),
    "shared lists": GROWS.format("'a'", "[ns.x, ns.x]"),
    "shared tuples": GROWS.format("'a'", "(ns.x, ns.x)"),
    "shared dicts": GROWS.format("'a'", "{'a': ns.x, 'b': ns.x}"),
    "block": GROWS.format("1", "y").replace("%}{% set", "%}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set"),
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "parentheses": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "source": "x" * 5_000_000,
}  # fmt: skip
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "assignments": "{% for i in range(99999) %}{% for j in range(999) %}{% set x = i * j %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
}


def rendered(folder, source, messages=HI):
    folder.joinpath("chat_template.jinja").write_text(source)
    return Template(str(folder)).render(messages, str(folder / "cache"))


@pytest.mark.parametrize("name", HUGE)
def test_a_template_makes_no_more_than_it_may(tmp_path, name):
    with pytest.raises(BadModel, match="chat template"):
        rendered(tmp_path, HUGE[name])


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_ends(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sandbox, "SECONDS", 0.1)
    with pytest.raises(BadModel, match="takes more than"):
        rendered(tmp_path, ENDLESS[name])


def test_half_a_surrogate_pair_becomes_a_character(tmp_path):
    assert rendered(tmp_path, "{{ '\\ud800' }}{% for m in messages %}{{ m.content }}{% endfor %}") == "\ufffdhi"


def test_what_is_bounded_renders_as_before():
    source = (
        "{{ messages | map(attribute='content') | join(', ') }}|{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ {'k': (1,)} }}|"
        "{{ '%s=%03d' % ('n', 7) }}|{{ '{:>4}|{a}'.format('x', a=2) }}|{{ 'ab' * 3 }}|{{ [1] + [2] }}|{{ 2 ** 10 }}|"
        "{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{{ loop.index }}{% endfor %}|{{ 'a b' | title | center(9) }}|"
        "{{ [3, 1, 2] | sort | batch(2, 0) | list }}|{{ 'aXbX' | replace('X', '--') }}|{{ 'x\ny' | indent(2) }}|"
        "{{ [1, 2] | sum }}|{{ ['a', 'b'] | slice(2) | list }}|{{ messages[0].content.upper().replace('H', 'h') }}"
    )
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert environment(HI).from_string(source).render(messages=HI) == plain.from_string(source).render(messages=HI)


def test_long_conversations_are_no_abuse(tmp_path):
    messages = [{"role": "user", "content": "word " * 2000} for _ in range(400)]
    source = (
        "{% set ns = namespace(all='') %}{% for m in messages %}"
        "{% set ns.all = ns.all ~ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim %}{% endfor %}{{ ns.all }}"
    )
    assert rendered(tmp_path, source, messages).count("word") == 400 * 2000


def test_tojson_is_counted_too(tmp_path):
    assert json.loads(rendered(tmp_path, "{{ messages | tojson(indent=2) }}")) == HI
    with pytest.raises(BadModel, match="makes too much"):
        rendered(tmp_path, "{{ messages | tojson(indent=10**9) }}")

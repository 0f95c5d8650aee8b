from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peml.tasks.fields import MissingField
from peml.tasks.jinja import LONGEST, JinjaTemplate
from peml.tasks.load import load_task
from peml.tasks.templates import check_template, fields_of, is_jinja, render
from peml.tasks.values import Cell, Written
from prefixnas.base.errors import UserError
from tests.workbench import write_lines

RECORD = {
    "a": "x",
    "n": Written("1.50"),
    "yes": True,
    "none": None,
    "cell": Cell("007"),
    "items": ["p", "q"],
    "deep": {"k": [1, 2], "items": "own"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ a }}", "x"),
        ("{{ n }} {{ yes }} {{ cell }} {{ items }}", '1.50 true 007 ["p", "q"]'),
        ("{{ deep.k[1] }} {{ deep['items'] }} {{ deep.items }}", "2 own own"),
        ("{% if none %}a{% else %}b{% endif %}", "b"),
        ("{% for x in items %}{{ loop.index }}. {{ x }}\n{% endfor %}", "1. p\n2. q\n"),
        ("{% for k, v in deep|items %}{{ k }}{% endfor %}", "kitems"),
        ("{{ items|join(', ') }} {{ [a, n]|join }}", "p, q x1.50"),
        ("{{ a|upper }}{{ a.upper() }} {{ a|replace('x', 'yy') }}", "XX yy"),
        ("{{ b|default('c') }} {{ a ~ a }} {{ 2 * 3 + 1 }}", "c xx 7"),
        ("{% set y = a ~ '!' %}{{ y }}{% for i in range(3) %}{{ i }}{% endfor %}", "x!012"),
        ("{{ {'x': 'one'}[a] }}\n", "one\n"),
        ("{{ 'a' if a == 'x' else 'b' }} {{ items|length }}", "a 2"),
    ],
)
def test_render(template: str, text: str) -> None:
    check_template(template)
    assert is_jinja(template)
    assert render(template, RECORD) == text


@pytest.mark.parametrize("template", ["{a}", "{{{a}}}", "{{x}}: {a}", "plain", '{{"k": {a}}}'])
def test_single_braces_stay_what_they_were(template: str) -> None:
    assert not is_jinja(template)
    check_template(template)


@given(st.text(), st.text(alphabet="ab {}%x", max_size=20))
def test_a_field_is_written_as_it_is(value: str, around: str) -> None:
    assert render("{{ a }}", {"a": value}) == value
    around = around.replace("{", "").replace("}", "").replace("%", "")
    assert render(around + "{{ a }}|", {"a": value}) == around + value + "|"


@pytest.mark.parametrize(
    ("template", "field", "there"),
    [
        ("{{ aa }}", "aa", tuple(k for k in RECORD if k != "none")),
        ("{{ deep.kk }}", "kk", ("k", "items")),
        ("{% for x in aa %}{% endfor %}", "aa", tuple(k for k in RECORD if k != "none")),
        ("{% if aa == 1 %}{% endif %}", "aa", tuple(k for k in RECORD if k != "none")),
        ("{{ items[7] }}", "7", ("0", "1")),
        ("{{ a.__class__ }}", "__class__", ()),
        ("{{ deep.pop }}", "pop", ("k", "items")),
        ("{{ aa|upper }}", "aa", tuple(k for k in RECORD if k != "none")),
    ],
)
def test_missing_fields(template: str, field: str, there: tuple[str, ...]) -> None:
    with pytest.raises(MissingField) as caught:
        render(template, RECORD)
    assert caught.value.field == field
    assert caught.value.present == (there or tuple(k for k in RECORD if k != "none"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ a",
        "{% if a %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% block x %}{% endblock %}",
        "{% set x %}{{ a }}{% endset %}",
        "{% filter upper %}a{% endfilter %}",
        "{% for x in items recursive %}{{ loop(x) }}{% endfor %}",
        "{{ 2 ** 9 }}",
        "{{ a|format(1) }}",
        "{{ a|center(10) }}",
        "{{ a|attr('x') }}",
        "{{ a|map('upper') }}",
        "{{ a|_rounds }}",
        "{{ " + "(" * 3000 + "a" + ")" * 3000 + " }}",
        "{{ a }}" * 10_000,
    ],
)
def test_what_is_malformed_or_not_allowed(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_template(template)


DOUBLED = "{% set y = a %}" + "{% set y = y ~ y %}" * 60 + "{{ y }}"
ADDED = "{% set y = a %}" + "{% set y = y + y %}" * 60 + "{{ y }}"
LISTED = "{% set y = [a] %}" + "{% set y = [y, y] %}" * 60 + "{{ y }}"
TABLED = "{% set y = [a] %}" + "{% set y = {1: y, 2: y} %}" * 60 + "{{ y }}"
SQUARED = "{% set n = 9 %}" + "{% set n = n * n %}" * 60 + "{{ n }}"
REPLACED = "{% set y = 'aaaaaaaaaa' %}" + "{% set y = y|replace('a', y) %}" * 20 + "{{ y }}"
JOINED = "{% set y = 'aaaaaaaaaa' %}" + "{% set y = y|list|join(y) %}" * 20 + "{{ y }}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(999999999) %}{% endfor %}",
        "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}",
        "{% for i in items %}" * 20 + "{{ i }}" + "{% endfor %}" * 20,
        "{% for i in big %}{% for j in big %}{% endfor %}{% endfor %}",
        "{% for i in range(9000) %}{{ big|upper }}{% endfor %}",
        "{% for i in range(900) %}{% if big.split('a') %}{% endif %}{% endfor %}",
        "{{ 'a' * 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ a.zfill(999999999) }}",
        "{{ '{:>999999999}'.format(1) }}",
        *(DOUBLED, ADDED, LISTED, TABLED, SQUARED, REPLACED, JOINED),
        "{% for i in range(99) %}{{ big }}{% endfor %}",
    ],
)
def test_nothing_goes_on_for_ever(template: str) -> None:
    record = {**RECORD, "big": "a" * 100_000}
    with pytest.raises((ValueError, LookupError)):
        JinjaTemplate(template).render(record)


def test_what_one_record_used_is_not_missing_for_the_next() -> None:
    template = JinjaTemplate("{% for x in big %}{% endfor %}{{ a }}")
    for _ in range(5):
        assert template.render({"big": "a" * 3_000, "a": "x"}) == "x"
    with pytest.raises(ValueError, match="too much for one record"):
        template.render({"big": "a" * 30_000, "a": "x"})
    with pytest.raises(ValueError, match="too much"):
        JinjaTemplate("{{ a }}").render({"a": "a" * (LONGEST + 1)})


def test_fields_of_a_template() -> None:
    assert fields_of("{% for x in items %}{{ x }}{{ a }}{% endfor %}{{ range(2) }}") == [
        *("a", "items")
    ]


def error_of(folder: Path, **keys: Any) -> str:
    rows = [{"sentence": f"text {i}", "label": ["bad", "good"][i % 2]} for i in range(8)]
    write_lines(folder / "data.jsonl", rows)
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    (folder / "mine.yaml").write_text(f"source: data.jsonl\n{lines}")
    with pytest.raises(UserError) as caught:
        load_task(folder / "mine.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("template", ["{{ sentense }}", "{sentense}"])
def test_an_undefined_field_is_one_line(tmp_path: Path, template: str) -> None:
    message = error_of(tmp_path, template=template)
    assert "data.jsonl, line 1: no field 'sentense': did you mean 'sentence'? (there: " in message
    assert "template" in message
    assert "mine.yaml" in message


def test_an_endless_template_is_one_line(tmp_path: Path) -> None:
    rounds = "{% for i in range(9000) %}{% for j in range(9000) %}x{% endfor %}{% endfor %}"
    message = error_of(tmp_path, template=rounds + "{{ sentence }}")
    assert "mine.yaml, line 2, key 'template': " in message
    assert "does too much for one record" in message
    assert "key 'answer': malformed template: Macro is not allowed" in error_of(
        tmp_path, answer="{% macro m() %}{% endmacro %}"
    )


def test_a_task_of_jinja_templates(tmp_path: Path) -> None:
    rows = [{"q": f"q{i}", "options": ["a", "b"], "answer": i % 2} for i in range(8)]
    write_lines(tmp_path / "data.jsonl", rows)
    (tmp_path / "mine.yaml").write_text(
        "source: data.jsonl\n"
        "template: |\n"
        "  {{ q }}\n"
        "  {%- for option in options %}\n"
        "  {{ 'AB'[loop.index0] }}. {{ option }}\n"
        "  {%- endfor %}\n"
        "answer: \"{{ 'AB'[answer] }}\"\n"
    )
    examples = load_task(tmp_path / "mine.yaml").splits["train"]
    assert {(e.prompt, e.answer) for e in examples} < {
        (f"q{i}\nA. a\nB. b", "AB"[i % 2]) for i in range(8)
    }

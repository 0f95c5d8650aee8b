"""Spaces as YAML: every mistake gives one line that says what is wrong and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.space.loading import SPACES, load_space, space_from_yaml, space_to_yaml
from prefixnas.space.nodes import Choice, Op, Seq, Stack, Sum
from prefixnas.space.space import SearchSpace


def test_everything_at_once_equals_the_python_form() -> None:
    text = """
    name: mine
    stack:
      layers: 2
      shared: true
      name: block
      cell:
        - linear
        - {linear: {bias: false}}
        - choice: {key: f, options: [relu, [linear, tanh]]}
        - sum: [identity, {dropout: 0.1}]
        - choice: {key: d, options: [{dropout: 0.1}, {dropout: 0.3}], decided_by: trial}
    """
    cell = Seq(
        "linear",
        Op("linear", bias=False),
        Choice("f", ["relu", Seq("linear", "tanh")]),
        Sum("identity", Op("dropout", 0.1)),
        Choice("d", [Op("dropout", 0.1), Op("dropout", 0.3)], "trial"),
    )
    space = SearchSpace("mine", Stack(2, cell, shared=True, name="block"))
    assert space_from_yaml(text) == space
    assert space_from_yaml(space_to_yaml(space)) == space


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: a\nstak: {layers: 1, cell: relu}",
            "f.yaml: unknown key 'stak': did you mean 'stack'?",
        ),
        (
            "name: a\nseq: [stak: {name: x}]",
            r"unknown operation or key 'stak': did you mean 'stack'",
        ),
        (
            "name: a\nseq: [choice: {key: f, optoins: [relu]}]",
            r"f.yaml: seq\[0\].choice: unknown key 'optoins': did you mean 'options'",
        ),
        ("name: a\nseq: [choice: {options: [relu]}]", "key 'key' is missing"),
        ("name: a\nseq: [choice: {key: f, options: []}]", "choice 'f' has no options"),
        ("name: a\nseq: [choice: {key: f, options:}]", "choice 'f' has no options"),
        ("name: a\nseq: [choice: {key: f, options: relu}]", "expected a list of nodes, not 'relu'"),
        ("name: a\nseq: [choice: {key: 3, options: [relu]}]", "choice.key: expected a text, not 3"),
        ("name: a\nseq: [choice: {key: f, options: [relu], decided_by: me}]", "unknown decided_by"),
        ("name: a\nseq: [choice]", "'choice' needs a value"),
        ("name: a\nseq: [rellu]", "unknown operation 'rellu': did you mean 'relu'"),
        ("name: a\nseq: []", "a seq needs at least one node"),
        ("name: a\nseq: [3]", r"seq\[0\]: expected an operation, .* not 3"),
        ("name: a\nseq: [{linear: [1, 2]}]", "takes a value or a mapping, not a list"),
        ("name: a\nstack: {layers: 0, cell: relu}", "layers must be a whole number .* not 0"),
        ("name: a\nstack: {layers: two, cell: relu}", "layers must be a whole number .* not 'two'"),
        ("name: a\nstack: {layers: true, cell: relu}", "layers must be a whole number .* not True"),
        ("name: a\nstack: {layers: 1}", "key 'cell' is missing"),
        ("name: a\nstack: {layers: 1, cell: relu, shared: 1}", "expected true or false, not 1"),
        ("name: a\nstack: [relu]", "expected a mapping with the keys layers, cell"),
        ("name: a\nname: b\nseq: [relu]", "f.yaml: line 2, column 1: .*key 'name' occurs twice"),
        ("name: a\nseq: [relu", "f.yaml: line 2.*not valid YAML"),
        ("name: a\nseq:\n  - relu\n - tanh", "f.yaml: line 4.*not valid YAML"),
        ("name: \x00", "not valid YAML"),
        ("seq: [relu]", "key 'name' must be a text, not None"),
        ("name: 3\nseq: [relu]", "key 'name' must be a text, not 3"),
        ("name: a\nstack: {layers: 1000000000, cell: [relu]}", "more than 10,000 operations"),
        ("name: a\nseq: [{linear: {factor: 0}}]", "'linear' cannot be built .*above 0"),
        ("name: a\nseq: [{linear: {factor: .inf}}]", "'linear' cannot be built .*at most 64"),
        ("name: a\nseq: [{dropout: 1.5}]", "'dropout' cannot be built .*between 0 and 1"),
        ("name: a\nseq: [{leaky_relu: {negative_slope: steep}}]", "'leaky_relu' cannot be built"),
        ("name: a", "needs exactly one of seq, sum, choice, stack"),
        ("name: a\nseq: [relu]\nsum: [tanh]", "needs exactly one of"),
        ("- relu", "a space is a mapping"),
        ("", "a space is a mapping"),
        ("name: a\nseq: !!python/object:os.system [relu]", "f.yaml: line 2.*tag .* is not allowed"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        space_from_yaml(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml")
    assert "\n" not in str(caught.value)


def test_spaces_are_found_by_name_and_by_file(tmp_path: Path) -> None:
    assert {"default", "paper", "sensitivity"} <= set(SPACES.names())
    path = tmp_path / "mine.yaml"
    path.write_text(space_to_yaml(load_space("default")))
    assert load_space(str(path)) == load_space("default")
    with pytest.raises(UserError, match="unknown space 'defualt': did you mean 'default'"):
        load_space("defualt")
    with pytest.raises(UserError, match="no such file"):
        load_space(str(tmp_path / "missing.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary.yaml: cannot be read"):
        load_space(str(tmp_path / "binary.yaml"))


@pytest.mark.parametrize("op", [Op("linear", 0.5, bias=False), Op("linear", 0.5, True)])
def test_what_yaml_cannot_hold_is_refused(op: Op) -> None:
    with pytest.raises(UserError, match="YAML"):
        space_to_yaml(SearchSpace("a", op))

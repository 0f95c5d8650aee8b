"""The key `method`: which options a configuration has, and what an objective makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from peml.methods.method import METHODS
from peml.objective.asked import method_of
from peml.objective.config import LanguageModelConfig
from peml.objective.objective import JointObjective
from prefixnas.base.errors import UserError
from prefixnas.space.loading import load_space
from tests.peml.objective.built import config


@pytest.mark.parametrize("name", METHODS.names())
def test_a_configuration_of_every_method_makes_that_method(name: str) -> None:
    made = method_of(LanguageModelConfig.of(name)())
    assert type(made) is METHODS.get(name)


def test_kinds_of_lora_share_their_options() -> None:
    made = method_of(LanguageModelConfig(method="rslora", lora_rank=3))
    assert METHODS.name_of(type(made)) == "rslora" and made.lora_rank == 3  # type: ignore[attr-defined]


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown method 'lorra'.*did you mean 'lora'"):
        LanguageModelConfig.of("lorra")


def test_a_method_that_trains_nothing_asks_for_a_prefix(bench: Path) -> None:
    frozen = LanguageModelConfig.of("frozen")
    objective = frozen(model=str(bench / "llama"), tasks=[str(bench / "mood")]).build(4, seed=0)
    with pytest.raises(UserError, match=r"'frozen'.*nothing trains.*--space preembedd"):
        objective.check_space(load_space("none"))
    objective.check_space(load_space("preembedd"))


def test_the_task_of_a_pass_reaches_what_is_attached(bench: Path) -> None:
    objective = JointObjective(config(bench), 4, 0)
    entered: list[str] = []
    attached = objective.lm.attached[0]
    assert attached is objective.method
    plain = attached.on
    attached.on = lambda task: (entered.append(task), plain(task))[1]  # type: ignore[method-assign, func-returns-value]
    objective.reset(None, 0)
    objective.backward()
    assert entered == ["mood", "order"]
    objective.evaluate("validation")
    assert entered == ["mood", "order"] * 2

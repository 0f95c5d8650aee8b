"""Probes: what they measure, and that a search does not notice them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.probe import POSITIONS, Probe
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.nodes import Choice, Seq
from prefixnas.space.space import SearchSpace
from prefixnas.strategies.darts import Darts
from prefixnas.testing import StrategyCheck, ToyObjective

SPACE = SearchSpace("one", Seq("linear", Choice("act", ["tanh", "gelu"])))


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for event in found:
        del event["time"]
        event.pop("seconds", None)
        event.pop("began", None)
    return found


def of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in events(folder) if event["event"] == kind]


@pytest.mark.parametrize(
    "strategy",
    [
        Darts(),
        Darts(relaxation="gumbel", prune_below=0.24),
        Darts(relaxation="one-path", update="projected"),
        Darts(relaxation="ste", level="bilevel"),
    ],
)
def test_a_search_finds_the_same_with_probes_and_without(strategy: Darts, tmp_path: Path) -> None:
    for every in (0, 2):
        run = Run(tmp_path / str(every), SPACE, ToyObjective(), Budget(14, 4), seed=3)
        search(run, replace(strategy, probe_every=every, probe_batches=2), Recipe(warmup=2))
    probed = events(tmp_path / "2")
    assert {"probe", "gap"} <= {event["event"] for event in probed}
    left = [event for event in probed if event["event"] not in ("probe", "gap")]
    assert left == events(tmp_path / "0")


def test_a_probed_search_survives_a_kill() -> None:
    probed = Darts(probe_every=2, probe_batches=2, alpha_warmup=0.0)
    StrategyCheck(probed, SPACE).resume()


class Bench:
    """A supernet with one decision on one batch that comes again and again, in float64."""

    def __init__(self, folder: Path) -> None:
        self.objective = ToyObjective(width=3, examples=8)
        self.net = Supernet(SPACE, 3)
        self.run = Run(folder, SPACE, self.objective, Budget(4, 1))
        self.run.reset(self.net)
        self.weights: list[torch.Tensor] = self.objective.parameters()[0]["params"]
        self.probe = Probe(self.run, self.net, "train", every=1, batches=2)

    def loss(self) -> float:
        losses = self.objective.backward("train")
        return sum(losses.values()) / 2

    def slope(self, parameters: list[torch.Tensor]) -> np.ndarray[Any, Any]:
        """Return the gradient by central differences."""
        found = []
        for parameter in parameters:
            flat = parameter.data.view(-1)
            for index in range(len(flat)):
                around = []
                for sign in (1, -1):
                    flat[index] += sign * 1e-5
                    around.append(self.loss())
                    flat[index] -= sign * 1e-5
                found.append((around[0] - around[1]) / 2e-5)
        return np.array(found)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield Bench(tmp_path)
    torch.set_default_dtype(torch.float32)


def test_changes_of_the_gradient_are_those_of_finite_differences(
    bench: Bench, tmp_path: Path
) -> None:
    alphas = [*bench.net.alphas]
    every = [*bench.weights, *alphas]
    before, all_before = bench.slope(alphas), bench.slope(every)
    with bench.probe.around(0), torch.no_grad():
        for weight in bench.weights:
            weight += 0.1 * torch.randn_like(weight)
        bench.slope([])
    moved = bench.slope(alphas)
    (first,) = of(tmp_path, "probe")
    np.testing.assert_allclose(first["alpha_gradient_norm"], [np.linalg.norm(before)] * 2, 1e-6)
    change = np.linalg.norm(moved - before)
    np.testing.assert_allclose(first["alpha_gradient_change"], [change] * 2, 1e-5)
    np.testing.assert_allclose(first["alpha_gradient_change_of_mean"], change, 1e-5)
    np.testing.assert_allclose(first["squared_norm"], np.sum(all_before**2), 1e-6)
    np.testing.assert_allclose(first["squared_norm_of_mean"], first["squared_norm"])
    assert first["alpha_move"] == 0

    start = bench.slope(every)
    kept = [parameter.detach().clone() for parameter in every]
    with bench.probe.around(1), torch.no_grad():
        for parameter in every:
            parameter += 0.2
    both = np.linalg.norm(bench.slope(every) - start)
    _, second = of(tmp_path, "probe")
    np.testing.assert_allclose(second["gradient_change"], [both] * 2, 1e-5)
    counts = [sum(p.numel() for p in group) for group in (bench.weights, alphas)]
    lengths = [second["weight_move"], second["alpha_move"]]
    np.testing.assert_allclose(lengths, 0.2 * np.sqrt(counts))
    for parameter, value in zip(every, kept, strict=True):
        torch.testing.assert_close(parameter.detach(), value + 0.2, rtol=0, atol=1e-12)


def test_the_way_to_the_child_by_hand(bench: Bench, tmp_path: Path) -> None:
    with torch.no_grad():
        bench.net.alphas[0].copy_(torch.tensor([0.3, 1.1]))
    p = np.exp([0.3, 1.1]) / np.exp([0.3, 1.1]).sum()
    inputs, targets = bench.objective._data["train"]
    linear, _ = bench.net.root.parts
    head = bench.objective._head

    def loss(weight: float) -> float:
        hidden = linear(inputs)
        mixed = (1 - weight) * torch.tanh(hidden) + weight * torch.nn.functional.gelu(hidden)
        return float((head(mixed) - targets).square().mean().detach())

    bench.probe.finish()
    (found,) = of(tmp_path, "gap")
    at = [p[1] + position * (1 - p[1]) for position in POSITIONS]
    np.testing.assert_allclose(found["losses"], [[loss(w) for w in at]] * 2)
    # Along the simplex of two candidates lies the direction (-1, 1) / sqrt(2) alone.
    slopes = [abs(loss(w + 1e-5) - loss(w - 1e-5)) / 2e-5 / np.sqrt(2) for w in at]
    np.testing.assert_allclose(found["gradient_norms"], [slopes] * 2, 1e-6)
    np.testing.assert_allclose(found["epsilon"]["act"], 1 - p[1])
    np.testing.assert_allclose(found["distance"], np.sqrt(2) * (1 - p[1]))
    with torch.no_grad():
        child = bench.net.child()
        torch.testing.assert_close(
            float((head(child(inputs)) - targets).square().mean()), found["losses"][0][-1]
        )
    assert bench.net.alphas[0].tolist() == [0.3, 1.1]


def test_a_straight_through_mixture_is_also_scored_by_its_probabilities(tmp_path: Path) -> None:
    for relaxation in ("ste", "softmax"):
        run = Run(tmp_path / relaxation, SPACE, ToyObjective(), Budget(6, 2))
        search(run, Darts(relaxation=relaxation), Recipe(), baseline="none")
    scored = of(tmp_path / "ste", "evaluation")
    names = {event["name"]: event["score"] for event in scored if event["split"] == "validation"}
    assert names["mixture"] == names["argmax child"] != names["softmax mixture"]
    assert all(e["name"] != "softmax mixture" for e in of(tmp_path / "softmax", "evaluation"))

"""What holds of a prefix in every family of models, from the first step to what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from peml.model.load import load_language_model
from peml.objective.objective import JointObjective
from peml.prefix.kinds import ATTENTIONS
from prefixnas.network.supernet import Supernet
from prefixnas.run.objective import fit_space
from tests.peml.objective.built import FAMILIES, GATED, config, off

ROWS = (torch.tensor([[10, 5, 22, 9, 12, 13, 14]]), torch.tensor([[11, 6, 23, 15]]))
"""Token ids of two texts of different lengths."""
ANSWER = torch.tensor([[0, 17, 18]])
"""What the decoder of an encoder-decoder model reads."""


def begun(bench: Path, family: str, attention: str) -> tuple[JointObjective, Supernet]:
    options = {"prefix_start": None, "prefix_attention": attention, "learning_rate": 0.02}
    objective = JointObjective(config(bench, family, **options), 9, 0)
    torch.manual_seed(1)
    net = Supernet(fit_space(GATED, objective), objective.width)
    objective.reset(net, 0)
    return objective, net


def train(objective: JointObjective, net: Supernet, steps: int) -> dict[str, list[bool]]:
    """Train all that is trained; say of each part in which steps it got a gradient."""
    encoder = objective.prefix.encoder
    assert encoder is not None
    parts: dict[str, list[nn.Parameter]] = {
        "LoRA": objective.method.parameters(),
        "output layer": list(encoder.output.parameters()),
        "embedding": [encoder.embedding],
        **{
            decision.name: [alpha]
            for decision, alpha in zip(net.decisions, net.alphas, strict=True)
        },
    }
    if encoder.head_gates is not None:
        parts["head gates"] = list(encoder.head_gates.parameters())
    groups = [*objective.parameters(), {"params": list(net.alphas), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups)
    reached: dict[str, list[bool]] = {part: [] for part in parts}
    for _ in range(steps):
        optimizer.zero_grad()
        objective.backward("train")
        for part, weights in parts.items():
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)
            reached[part].append(any(bool(gradient.any()) for gradient in gradients))
        optimizer.step()
    return reached


def read(model: PreTrainedModel, given: Mapping[str, Any]) -> Tensor:
    output: Tensor = model.eval()(**given)[0]
    return output


def alone(family: str, row: Tensor) -> dict[str, Tensor]:
    """Return the inputs of one text, without padding."""
    decoder = {"decoder_input_ids": ANSWER} if family == "t5" else {}
    return {"input_ids": row, **decoder}


def padded(family: str) -> dict[str, Tensor]:
    """Return both texts as one batch, padded, and with positions, as generation has them."""
    long, short = ROWS
    room = long.shape[1] - short.shape[1]
    sides = (room, 0) if family == "llama" else (0, room)
    ids = torch.cat([long, nn.functional.pad(short, sides)])
    mask = (ids > 0).long()
    more = {
        "llama": {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)},
        "t5": {"decoder_input_ids": ANSWER.expand(2, -1)},
    }
    return {"input_ids": ids, "attention_mask": mask, **more.get(family, {})}


def in_two_passes(model: PreTrainedModel, family: str) -> Tensor:
    """Read the batch up to its last two tokens, and these from the cache."""
    given = padded(family)
    if family == "t5":
        tokens = given.pop("decoder_input_ids")
        first = model.eval()(**given, decoder_input_ids=tokens[:, :-2], use_cache=True)
        states = (first.encoder_last_hidden_state,)
        rest = {"encoder_outputs": states, "decoder_input_ids": tokens[:, -2:]}
    else:
        first = model.eval()(**{k: v[:, :-2] for k, v in given.items()}, use_cache=True)
        rest = {key: given[key][:, -2:] for key in ("input_ids", "position_ids")}
    rest |= {"attention_mask": given["attention_mask"], "past_key_values": first.past_key_values}
    return read(model, rest)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_at_step_0_the_model_is_the_base_model(family: str, bench: Path) -> None:
    objective, _ = begun(bench, family, "parallel")
    base = load_language_model(bench / family).model
    assert objective.prefix.encoder is not None
    prefix = objective.prefix.encoder.prefix()
    assert prefix.blocks is not None and prefix.blocks[:, 0].any()
    with objective.prefix.handle.using(prefix.blocks, prefix.gates):
        model = objective.lm.model
        for given in (padded(family), *(alone(family, row) for row in ROWS)):
            assert (read(model, given) - read(base, given)).abs().max() == 0
        if family != "bert":
            ours, theirs = (in_two_passes(each, family) for each in (model, base))
            assert (ours - theirs).abs().max() == 0


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_has_a_gradient_within_three_steps(
    family: str, attention: str, bench: Path
) -> None:
    objective, net = begun(bench, family, attention)
    reached = train(objective, net, 3)
    assert len(reached) == 3 + (attention == "parallel") + len(net.decisions)
    assert all(any(steps) for steps in reached.values()), reached


def trained_prefix(objective: JointObjective) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute keys and gated values, ``[kv_heads, l, head_dim]``, from the bare weights."""
    encoder = objective.prefix.encoder
    assert encoder is not None and encoder.body is not None
    weights = encoder.state_dict()
    hidden = encoder.body.eval()(weights["embedding"])
    flat = hidden @ weights["output.weight"].T + weights["output.bias"]
    found = {}
    for place, site in enumerate(encoder.sites):
        sizes = (len(encoder.sites), 2, site.kv_heads, site.head_dim)
        key, value = (
            flat.unflatten(-1, sizes)[:, place].permute(1, 2, 0, 3) + weights["start"][place]
        )
        if "head_gates.weight" in weights:
            value = value * weights["head_gates.weight"][place].tanh()[:, None, None]
        found[site.path] = key, value
    return found


def merged(objective: JointObjective, base: PreTrainedModel) -> PreTrainedModel:
    """Add ``alpha / r * B A`` to the base model's weights."""
    scale = objective.config.lora_alpha / objective.config.lora_rank
    weights = objective.lm.model.state_dict()
    names = [name for name in weights if name.endswith(".lora_A.default.weight")]
    assert names
    for name in names:
        update = weights[name.replace("lora_A", "lora_B")] @ weights[name]
        assert update.any()
        base.get_submodule(name.removesuffix(".lora_A.default.weight")).weight.add_(scale * update)
    return base


@contextmanager
def by_the_book(
    model: PreTrainedModel, prefix: Mapping[str, tuple[Tensor, Tensor]], attention: str
) -> Iterator[None]:
    """Let a model compute attention as the formulas say, with an eager mask."""
    blocks = {model.get_submodule(path): block for path, block in prefix.items()}

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        key, value, front, read = (
            block.repeat_interleave(groups, dim=-3) for block in (key, value, *blocks[module])
        )
        scores = query @ key.transpose(-1, -2) * scale
        for bias in (position_bias, attention_mask):
            scores = scores if bias is None else scores + bias
        to_prefix = query @ front.transpose(-1, -2) * scale
        if attention == "concat":
            weights = torch.cat([to_prefix, scores], dim=-1).softmax(-1)
            length = front.shape[-2]
            output = weights[..., :length] @ read + weights[..., length:] @ value
        else:
            output = scores.softmax(-1) @ value + to_prefix.softmax(-1) @ read
        return output.transpose(1, 2), None

    AttentionInterface.register("by-the-book", attend)
    AttentionMaskInterface.register("by-the-book", eager_mask)
    try:
        model.set_attn_implementation("by-the-book")
        yield
    finally:
        for interface in (AttentionInterface, AttentionMaskInterface):
            del interface._global_mapping["by-the-book"]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_trained_is_what_the_formulas_say(
    family: str, attention: str, bench: Path
) -> None:
    """Padded and from the cache, against each text alone."""
    objective, net = begun(bench, family, attention)
    off(objective.lm.model)
    train(objective, net, 4)
    for site in range(len(objective.prefix.sites)):
        net.keep(f"attention{site}/gate", "on")
    objective.replace(net.cut())
    base = load_language_model(bench / family, dtype="float64").model
    encoder = objective.prefix.encoder
    assert encoder is not None
    model = objective.lm.model.double()
    encoder.double()
    with torch.no_grad():
        formula, expected = merged(objective, base), []
        prefix = trained_prefix(objective)
        plain = read(formula, alone(family, ROWS[0]))
        with by_the_book(formula, prefix, attention):
            for row in ROWS:
                given = alone(family, row)
                if (family, attention) == ("llama", "concat"):  # the text stands behind it
                    given["position_ids"] = torch.arange(row.shape[1])[None] + encoder.length
                expected.append(read(formula, given))
        assert not torch.allclose(expected[0], plain, atol=1e-2)
        evaluated = objective.prefix.evaluated()
        with objective.prefix.handle.using(evaluated.blocks, evaluated.gates):
            together = read(model, padded(family))
            cached = None if family == "bert" else in_two_passes(model, family)
    for row, wanted in enumerate(expected):
        length = wanted.shape[1]
        found = together[row, -length:] if family == "llama" else together[row, :length]
        torch.testing.assert_close(found, wanted[0], rtol=1e-5, atol=1e-5)
        if cached is not None:
            torch.testing.assert_close(cached[row], wanted[0, -2:], rtol=1e-5, atol=1e-5)

from __future__ import annotations

import pytest
import torch

from peml.prefix.handle import attach
from peml.prefix.sites import Site, find_sites
from prefixnas.base.errors import UserError
from tests.peml import zoo


def test_sites_of_a_grouped_query_decoder() -> None:
    assert find_sites(zoo.build("llama")) == (
        Site("model.layers.0.self_attn", "decoder", 2, 12),
        Site("model.layers.1.self_attn", "decoder", 2, 12),
    )


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_sites_of_t5_are_three_encoder_two_decoder_two_cross_layers(kind: str) -> None:
    model = zoo.build(kind)
    kinds = [site.kind for site in find_sites(model)]
    assert (kinds.count("encoder"), kinds.count("decoder"), kinds.count("cross")) == (3, 2, 2)
    for site in find_sites(model):
        stack = "encoder" if site.kind == "encoder" else "decoder"
        attention = "EncDecAttention" if site.kind == "cross" else "SelfAttention"
        assert site.path.startswith(stack)
        assert site.path.endswith(attention)
        assert (site.kv_heads, site.head_dim) == (4, 12)


def test_where_selects_kinds() -> None:
    model = zoo.build("bart")
    assert {site.kind for site in find_sites(model, ["cross"])} == {"cross"}
    assert {site.kind for site in find_sites(model, ["encoder", "decoder"])} == {
        "encoder",
        "decoder",
    }


@pytest.mark.parametrize(
    ("where", "message"),
    [(["cros"], "did you mean 'cross'"), (["encoder"], "no 'encoder' attention"), ([], "empty")],
)
def test_where_refuses_kinds_that_the_model_lacks(where: list[str], message: str) -> None:
    model = zoo.build("t5" if where == ["cros"] else "llama")
    with pytest.raises(UserError, match=message):
        find_sites(model, where)


@pytest.mark.parametrize("kind", zoo.UNSUPPORTED)
def test_unsupported_architectures_are_refused_by_name(kind: str) -> None:
    model = zoo.build(kind)
    with pytest.raises(UserError, match=f"{kind}.*can't take a prefix"):
        find_sites(model)
    with pytest.raises(UserError, match=kind):
        attach(model)


def test_looking_for_sites_changes_nothing() -> None:
    model = zoo.build("t5").train()
    model.encoder.eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    find_sites(model)
    attach(model).detach()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert not any("_peml" in key for module in model.modules() for key in vars(module))

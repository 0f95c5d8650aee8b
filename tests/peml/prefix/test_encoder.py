from __future__ import annotations

import pytest
import torch
from torch import nn

from peml.prefix.encoder import PrefixEncoder
from peml.prefix.sites import find_sites
from tests.peml import zoo


def test_encoder_lays_out_blocks_by_site_part_head_position() -> None:
    sites = find_sites(zoo.build("llama"))
    encoder = PrefixEncoder(5, 6, None, sites, attention="concat")
    blocks = encoder()
    assert blocks.shape == (2, 2, 2, 5, 12)
    column = ((1 * 2 + 0) * 2 + 1) * 12 + 7
    assert blocks[1, 0, 1, 3, 7].item() == pytest.approx(
        float(
            (
                encoder.embedding[3] @ encoder.output.weight[column] + encoder.output.bias[column]
            ).detach()
        )
    )


def test_encoder_swaps_its_body_and_keeps_the_rest() -> None:
    sites = find_sites(zoo.build("llama"))
    encoder = PrefixEncoder(5, 6, nn.Linear(6, 9), sites, 9, attention="concat")
    weight, embedding = encoder.output.weight.clone(), encoder.embedding.clone()
    new = nn.Sequential(nn.Linear(6, 9), nn.Tanh())
    encoder.replace_body(new)
    assert torch.equal(encoder.output.weight, weight)
    assert torch.equal(encoder.embedding, embedding)
    flat = encoder.output(new(embedding)).view(5, 2, 2, 2, 12).permute(1, 2, 3, 0, 4)
    assert torch.equal(encoder(), flat)


def test_encoder_can_get_a_body_of_another_width_later() -> None:
    encoder = PrefixEncoder(5, 6, None, find_sites(zoo.build("llama")), body_width_out=9)
    encoder.replace_body(nn.Linear(6, 9))
    assert encoder().shape == (2, 2, 2, 5, 12)


def test_materialise_is_free_of_dropout_and_keeps_modes() -> None:
    sites = find_sites(zoo.build("llama"))
    encoder = PrefixEncoder(5, 6, nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(6)), sites).train()
    first, second = encoder.materialise(), encoder.materialise()
    assert torch.equal(first, second)
    assert torch.equal(first, encoder.eval()())
    encoder.train()
    encoder.materialise()
    assert all(module.training for module in encoder.modules())
    assert not first.requires_grad

"""A frozen base model in pieces, for models larger than a device (FSDP2 of torch).

Each process keeps its part of every layer's weights, and has a layer whole only while it computes.
Embeddings, the last layer, and all that trains are whole in every process. Passes of the model are
a matter of all processes: they gather a layer's weights together, so that each of them makes as
many passes as the others.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from peml.methods.method import Method
from peml.model.model import LanguageModel
from peml.objective.proxy import stacks
from prefixnas.base.errors import UserError
from prefixnas.run.ranks import Ranks

WHERE = "key 'shard'"


def check_shard(lm: LanguageModel, method: Method, ranks: Ranks) -> None:
    """Refuse what cannot be had of a model in pieces.

    Raises:
        UserError: A single process, quantised weights, or a method that computes with the weights.
    """
    if ranks.count == 1:
        raise UserError(f"{WHERE}: there is one process, and so one piece; raise 'processes'")
    if lm.quantize is not None:
        raise UserError(f"{WHERE}: quantised weights cannot be cut; leave one of the keys out")
    if method.reads_base:
        raise UserError(
            f"{WHERE}: method {method.label!r} computes with the base model's own weights, which "
            "no process has whole; leave the key out, or take 'lora'"
        )


def shard_layers(lm: LanguageModel, device: torch.device, ranks: Ranks) -> None:
    """Leave each process its part of every layer.

    Args:
        lm: The model, in the main memory, where it has to fit, with nothing attached.
        device: Where to compute.
        ranks: This process and the others.
    """
    mesh = init_device_mesh(device.type, (ranks.count,))
    for stack in stacks(lm.model):
        for layer in stack:
            # Said, because a layer with no sharded module around it would stay whole otherwise.
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    nn.Module.to(lm.model, device)

"""A frozen backbone in shards, of which each process holds one, where Accelerate's configuration asks for FSDP."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from radapter_lite.backbone.load import Backbone
from radapter_lite.backbone.sites import TOWERS, find_blocks
from radapter_lite.processes import asks_for_shards, count


@contextmanager
def sharded(backbone: Backbone) -> Iterator[Backbone]:
    """The backbone; or, for processes that were started with FSDP on, a copy of which each holds a part.

    A block's weights are gathered for its own pass alone, forward and backward, by PyTorch's FSDP2 with the settings
    that Accelerate was given; the whole model waits on the CPU. Raises ValueError for towers that are no Transformers.
    """
    if not asks_for_shards():
        yield backbone
        return
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    asked, device = FullyShardedDataParallelPlugin(fsdp_version=2), backbone.device
    model = copy.deepcopy(backbone.model.cpu()).requires_grad_(False)
    settings = {"reshard_after_forward": asked.reshard_after_forward, "offload_policy": asked.cpu_offload}
    settings["mesh"] = init_device_mesh(device.type, (count(),))
    for tower in TOWERS:
        for block in find_blocks(model, tower):
            fully_shard(model.get_submodule(block), **settings)
    scalars = {parameter for parameter in model.parameters() if not parameter.ndim}  # which FSDP refuses to divide
    fully_shard(model, **settings, ignored_params=scalars)
    for method in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)
    try:
        yield replace(backbone, model=model)
    finally:
        backbone.model.to(device)

"""Random tensors as the published files of NAT and DiNAT hold them."""

import numpy as np

from keras_sasa.applications.nat import NATOptions

# Two levels, dilated in the second; with scales of the branches.
TINY = NATOptions("NATMini", (1, 2), 32, 2, 0.2, 0.5, (1, 2))


def checkpoint(options=TINY, classes=5, kernel_size=3):
    """Random tensors under the names of a checkpoint of the authors."""
    random = np.random.default_rng(0)
    tensors = {}

    def add(name, *shape):
        tensors[name] = random.normal(scale=0.5, size=shape).astype("float32")

    def module(name, *shape):
        add(f"{name}.weight", *shape)
        add(f"{name}.bias", shape[0])

    channels = options.channels
    module("patch_embed.proj.0", channels // 2, 3, 3, 3)
    module("patch_embed.proj.1", channels, channels // 2, 3, 3)
    module("patch_embed.norm", channels)
    for level, blocks in enumerate(options.num_blocks):
        for number in range(blocks):
            block = f"levels.{level}.blocks.{number}"
            module(f"{block}.norm1", channels)
            offsets = 2 * kernel_size - 1
            add(f"{block}.attn.rpb", channels // 32, offsets, offsets)
            module(f"{block}.attn.qkv", 3 * channels, channels)
            module(f"{block}.attn.proj", channels, channels)
            module(f"{block}.norm2", channels)
            hidden = options.mlp_ratio * channels
            module(f"{block}.mlp.fc1", hidden, channels)
            module(f"{block}.mlp.fc2", channels, hidden)
            if options.layer_scale is not None:
                add(f"{block}.gamma1", channels)
                add(f"{block}.gamma2", channels)
        if level + 1 < len(options.num_blocks):
            name = f"levels.{level}.downsample"
            add(f"{name}.reduction.weight", 2 * channels, channels, 3, 3)
            channels *= 2
            module(f"{name}.norm", channels)
    module("norm", channels)
    module("head", classes, channels)
    return tensors


def on_the_hub(tensors, prefix="nat."):
    """The same tensors as a file of the hub holds them."""
    result = {}
    for name, tensor in tensors.items():
        if name.startswith("head."):
            result[name.replace("head.", "classifier.")] = tensor
            continue
        parts = name.split(".")
        if parts[0] == "patch_embed":
            middle = {"proj": "patch_embeddings.projection", "norm": "norm"}
            name = ".".join(["embeddings", middle[parts[1]], *parts[2:]])
        elif parts[0] == "norm":
            name = f"layernorm.{parts[1]}"
        elif parts[2] == "downsample":
            name = f"encoder.{name}"
        else:
            _, level, _, number, *rest = parts
            layer = f"{prefix}encoder.levels.{level}.layers.{number}"
            rest = ".".join(rest)
            if rest.startswith("attn.qkv"):
                kind = rest.rsplit(".", 1)[1]
                thirds = np.split(tensor, 3)
                for part, third in zip(
                    ("query", "key", "value"), thirds, strict=True
                ):
                    result[f"{layer}.attention.self.{part}.{kind}"] = third
                continue
            if rest.startswith("gamma"):
                both = f"{layer}.layer_scale_parameters"
                rows = result.setdefault(both, np.zeros((2, *tensor.shape)))
                rows[int(rest[-1]) - 1] = tensor
                result[both] = rows.astype("float32")
                continue
            for theirs, ours in (
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("attn.rpb", "attention.self.rpb"),
                ("attn.proj", "attention.output.dense"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
            ):
                rest = rest.replace(theirs, ours)
            result[f"{layer}.{rest}"] = tensor
            continue
        result[f"{prefix}{name}"] = tensor
    return result

"""Small HaloNets, and random tensors as files of timm hold them."""

import numpy as np

from keras_sasa.applications.halonet import HaloNetOptions

# All that networks differ in, in two networks.
TINY = HaloNetOptions(
    "HaloNet26T",
    (1, 2),
    ((), (1, 2)),
    1,
    "relu",
    filters=(16, 24),
    num_heads=(1, 2),
    channel_attention="squeeze_excitation",
    stem_pool=False,
    final_filters=12,
    channels=8,
    block_size=2,
)
TINY_GROUPS = HaloNetOptions(
    "HaloNet26T",
    (1, 1),
    ((1,), ()),
    2,
    "silu",
    filters=(16, 24),
    num_heads=(2, 1),
    key_width=3,
    group_width=4,
    channel_attention="efficient",
    channels=8,
    block_size=2,
)


def timm_tensors(options=TINY, classes=5):
    """Random tensors under the names of timm."""
    random = np.random.default_rng(0)
    tensors = {}

    def add(name, *shape, scale=0.5):
        tensors[name] = random.normal(scale=scale, size=shape)

    def normalization(name, channels):
        for part in ("weight", "bias", "running_mean"):
            add(f"{name}.{part}", channels)
        tensors[f"{name}.running_var"] = random.uniform(0.5, 1.5, channels)
        tensors[f"{name}.num_batches_tracked"] = np.array(7)

    def convolution(name, filters, channels, side, groups=1):
        add(f"{name}.conv.weight", filters, channels // groups, side, side)
        normalization(f"{name}.bn", filters)

    channels = 3
    for number, filters in enumerate(
        (3 * options.channels // 8, options.channels // 2, options.channels),
        start=1,
    ):
        convolution(f"stem.conv{number}", filters, channels, 3)
        channels = filters
    for level, blocks in enumerate(options.num_blocks):
        filters, width = options.filters[level], options.channels * 2**level
        for number in range(blocks):
            name = f"stages.{level}.{number}"
            if number == 0:
                convolution(f"{name}.shortcut", filters, channels, 1)
            convolution(f"{name}.conv1_1x1", width, channels, 1)
            if number + 1 in options.attention[level]:
                heads = options.num_heads[level]
                key = options.key_width or width // heads
                add(f"{name}.self_attn.q.weight", heads * key, width, 1, 1)
                both = heads * key + width
                add(f"{name}.self_attn.kv.weight", both, width, 1, 1)
                window = options.block_size + 2 * options.halo_size
                for part in ("height_rel", "width_rel"):
                    add(
                        f"{name}.self_attn.pos_embed.{part}",
                        2 * window - 1,
                        key,
                    )
                normalization(f"{name}.post_attn", width)
            else:
                groups = width // (options.group_width or width)
                convolution(f"{name}.conv2_kxk", width, width, 3, groups)
                if options.channel_attention == "efficient":
                    add(f"{name}.attn.conv.weight", 1, 1, 3)
                elif options.channel_attention is not None:
                    add(f"{name}.attn.fc1.weight", 8, width, 1, 1)
                    add(f"{name}.attn.fc1.bias", 8)
                    add(f"{name}.attn.fc2.weight", width, 8, 1, 1)
                    add(f"{name}.attn.fc2.bias", width)
            convolution(f"{name}.conv3_1x1", filters, width, 1)
            channels = filters
    if options.final_filters is not None:
        convolution("final_conv", options.final_filters, channels, 1)
        channels = options.final_filters
    add("head.fc.weight", classes, channels)
    add("head.fc.bias", classes)
    return {
        name: np.asarray(
            tensor, "int64" if name.endswith("tracked") else "float32"
        )
        for name, tensor in tensors.items()
    }

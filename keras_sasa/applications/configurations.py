"""Networks by name: all rows of the paper's tables, and small networks.

`CONFIGURATIONS` maps names to arguments of `ResNet`:

>>> from keras_sasa.applications import CONFIGURATIONS, ResNet
>>> model = ResNet(**CONFIGURATIONS["digits_attention"],
...                input_shape=(8, 8, 1), classes=10)
>>> model.output_shape
(None, 10)

The rows are from Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909).
The paper also scales the width of all layers; the factors here are ours.
"""

from keras_sasa.applications.resnet import NUM_BLOCKS

_GROUPS = "1234"
_WIDTHS = (0.25, 0.5, 0.75, 1.25, 1.5)


def _paper():
    networks = {}
    for depth, num_blocks in NUM_BLOCKS.items():
        blocks = {"num_blocks": num_blocks}
        networks[f"resnet{depth}_conv"] = {**blocks, "spatial": "conv"}
        networks[f"resnet{depth}_attention"] = blocks
        networks[f"resnet{depth}_full_attention"] = {
            **blocks,
            "stem": "attention",
        }
    base = networks["resnet50_attention"]
    for convolutions in ("1", "12", "123", "234", "34", "4"):
        attentions = "".join(g for g in _GROUPS if g not in convolutions)
        networks[f"resnet50_conv{convolutions}_attention{attentions}"] = {
            **base,
            "spatial": tuple(
                "conv" if group in convolutions else "attention"
                for group in _GROUPS
            ),
        }
    for name, options in {
        "kernel3": {"kernel_size": 3},
        "kernel5": {"kernel_size": 5},
        "kernel9": {"kernel_size": 9},
        "kernel11": {"kernel_size": 11},
        "position_only": {"use_content": False},
        "no_position": {"position_encoding": None},
        "absolute_position": {"position_encoding": "absolute"},
        "plain_stem": {"stem": "plain_attention"},
        "conv_value_stem": {"stem": "conv_value_attention"},
    }.items():
        networks[f"resnet50_{name}"] = {**base, **options}
    for kind in ("conv", "attention"):
        for width in _WIDTHS:
            networks[f"resnet50_{kind}_width{width}"] = {
                **networks[f"resnet50_{kind}"],
                "width_multiplier": width,
            }
    return networks


def _small():
    """For images of 32 and of 8 pixels; convolutions come first."""
    cifar10 = {
        "num_blocks": (1, 1, 1, 1),
        "stem": "small",
        "num_heads": 4,
        "width_multiplier": 0.25,
    }
    return {
        "cifar10_conv": {**cifar10, "spatial": "conv"},
        "cifar10_hybrid": {
            **cifar10,
            "spatial": ("conv", "conv", "attention", "attention"),
        },
        "cifar10_attention": cifar10,
        "digits_attention": {
            "num_blocks": (1, 1),
            "stem": "small",
            "kernel_size": 5,
            "num_heads": 4,
            "width_multiplier": 0.25,
        },
    }


CONFIGURATIONS = {**_paper(), **_small()}

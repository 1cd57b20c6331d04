"""The detectors of the paper, by name, for `build_detector`.

Ramachandran et al., 2019 (https://arxiv.org/abs/1906.05909), table 2, in the
same order. The first part of a name tells whether the backbone, or also its
stem, consists of attention; the second part does so for the pyramid and heads.
"""

from keras_sasa.applications.resnet import NUM_BLOCKS


def _detector(backbone, stem, spatial):
    return {
        "backbone": {
            "num_blocks": NUM_BLOCKS[50],
            "spatial": backbone,
            "stem": stem,
        },
        "spatial": spatial,
    }


DETECTORS = {
    "conv_conv": _detector("conv", "conv", "conv"),
    "attention_conv": _detector("attention", "conv", "conv"),
    "full_attention_conv": _detector("attention", "attention", "conv"),
    "attention_attention": _detector("attention", "conv", "attention"),
    "full_attention_attention": _detector(
        "attention", "attention", "attention"
    ),
}

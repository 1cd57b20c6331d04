"""The published weights of NAT and DiNAT, and their names in files.

Two kinds of files hold the same tensors: the checkpoints of the authors, and
the files on the Hugging Face hub. The names of the checkpoints are the common
ground: those of the hub, and our own, are translated into them.
"""

from collections.abc import Mapping

import numpy as np

from keras_sasa.applications.published_file import PublishedFile
from keras_sasa.applications.weight_conversion import translate

# Rows (pattern, replacement), applied one after the other.
_FROM_THE_HUB = (
    (r"^(nat|dinat)\.", ""),
    (r"^encoder\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"\.layers\.", ".blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
_FROM_OURS = (
    (r"^stem_conv1/", "patch_embed.proj.0."),
    (r"^stem_conv2/", "patch_embed.proj.1."),
    (r"^stem_normalization/", "patch_embed.norm."),
    (r"^normalization/", "norm."),
    (r"^predictions/", "head."),
    (r"_downsample_conv/", ".downsample.reduction."),
    (r"_downsample_normalization/", ".downsample.norm."),
    (r"_attention_normalization/", ".norm1."),
    (r"_mlp_normalization/", ".norm2."),
    (r"_mlp_expand/", ".mlp.fc1."),
    (r"_mlp_reduce/", ".mlp.fc2."),
    (r"_attention_scale/gamma$", ".gamma1"),
    (r"_mlp_scale/gamma$", ".gamma2"),
    (r"_attention/position_bias$", ".attn.rpb"),
    (r"_attention/output_", ".attn.proj."),
    (r"_attention/(query|key|value)_", r".attn.\1."),
    (r"\.(kernel|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
    # Downsamplers stand behind their level there, and in front of it here.
    (r"^group(\d+)(?=\.downsample)", lambda m: f"levels.{int(m[1]) - 2}"),
    (
        r"^group(\d+)_block(\d+)",
        lambda m: f"levels.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}",
    ),
)


def tensor_name(layer: str, weight: str) -> str:
    """Returns the name of a weight of a layer in a checkpoint."""
    return translate(f"{layer}/{weight}", _FROM_OURS)


def standardize(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors under the names of a checkpoint.

    Tensors that hold several weights are divided: queries, keys and values of a
    checkpoint, and the two scales of a block in a file of the hub.
    """
    standardized = {}
    for name, tensor in tensors.items():
        name = translate(name, _FROM_THE_HUB)
        parts = [name]
        if ".attn.qkv." in name:
            parts = [
                name.replace(".qkv.", f".{part}.")
                for part in ("query", "key", "value")
            ]
        elif name.endswith(".layer_scale_parameters"):
            block = name.removesuffix("layer_scale_parameters")
            parts = [f"{block}gamma1", f"{block}gamma2"]
        if len(parts) == 1:
            standardized[name] = tensor
            continue
        if tensor.shape[0] % len(parts):
            raise ValueError(
                f"the tensor {name!r} must have {len(parts)} equal parts. "
                f"Received: the shape {tensor.shape}."
            )
        for part, values in zip(
            parts, np.split(tensor, len(parts)), strict=True
        ):
            # The scales of the hub are rows of a matrix.
            scale = name.endswith(".layer_scale_parameters")
            standardized[part] = values[0] if scale else values
    return standardized


def _hub(name, revision, sha256=None):
    return PublishedFile(
        f"shi-labs/{name}", revision, "pytorch_model.bin", sha256
    )


_PLAIN = (1, 1, 1, 1)
_DILATED = (8, 4, 2, 1)
# By network, size of the window and dilations. Licence of all: MIT.
PUBLISHED = {
    ("NATMini", 7, _PLAIN): _hub(
        "nat-mini-in1k-224", "b34f038f1ed307d1f0592c6717c4ebbdda28dc9b"
    ),
    ("NATTiny", 7, _PLAIN): _hub("nat-tiny-in1k-224", "2718fcb"),
    ("NATSmall", 7, _PLAIN): _hub(
        "nat-small-in1k-224",
        "665146828020e5ba40a7cbe1037a14968959e067",
        "3535d4871740f2112494d90302addf1d55cf165bda63506e4a42c2726df0ea74",
    ),
    ("NATBase", 7, _PLAIN): _hub(
        "nat-base-in1k-224",
        "89747c2e00ff2db15bea60a20b0a7e67012e2f1d",
        "97f78c4e357a2a74db4c1500330f811afc43634c7deb786555f43219c0cd2110",
    ),
    ("DiNATMini", 7, _DILATED): _hub(
        "dinat-mini-in1k-224",
        "3f3b40b",
        "f2cb106bc508332230cc83a5854950de87ad82c5c583dccec33ee09048a6c4e6",
    ),
    ("DiNATTiny", 7, _DILATED): _hub(
        "dinat-tiny-in1k-224",
        "6fb168cec048ca7882d74571313f2ad27584dd24",
        "a816e6a258382100740257125237e2dc4abeca2600409742bae47ce300dcf846",
    ),
    ("DiNATSmall", 7, _DILATED): _hub(
        "dinat-small-in1k-224",
        "602e818",
        "2272780ca4698b27a7497d3949fda317e803a299f9597853731463d304a9eb72",
    ),
    ("DiNATBase", 7, _DILATED): _hub("dinat-base-in1k-224", "6d51420"),
    ("DiNATLarge", 7, _DILATED): _hub(
        "dinat-large-in22k-in1k-224",
        "ec24e2001225298865e6827942414bc6d692d645",
    ),
    ("DiNATLarge", 7, (13, 6, 3, 1)): _hub(
        "dinat-large-in22k-in1k-384", "c061db1"
    ),
    ("DiNATLarge", 11, _DILATED): _hub(
        "dinat-large-11x11-in22k-in1k-384", "28cc67a"
    ),
}

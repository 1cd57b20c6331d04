"""The published weights of HaloNets, and their names in files of timm."""

from collections.abc import Mapping

import numpy as np

from keras_sasa.applications.published_file import PublishedFile
from keras_sasa.applications.weight_conversion import translate

# Rows (pattern, replacement), applied one after the other.
_FROM_OURS = (
    (r"^stem_conv(\d)/", r"stem.conv\1.conv."),
    (r"^stem_normalization(\d)/", r"stem.conv\1.bn."),
    (r"^final_conv/", "final_conv.conv."),
    (r"^final_normalization/", "final_conv.bn."),
    (r"^predictions/", "head.fc."),
    (r"_shortcut_conv/", ".shortcut.conv."),
    (r"_shortcut_normalization/", ".shortcut.bn."),
    (r"_reduce_conv/", ".conv1_1x1.conv."),
    (r"_reduce_normalization/", ".conv1_1x1.bn."),
    (r"_spatial_conv/", ".conv2_kxk.conv."),
    (r"_spatial_normalization/", ".conv2_kxk.bn."),
    (r"_attention_normalization/", ".post_attn."),
    (r"_expand_conv/", ".conv3_1x1.conv."),
    (r"_expand_normalization/", ".conv3_1x1.bn."),
    (r"_gate_conv/", ".attn.conv."),
    (r"_gate_reduce/", ".attn.fc1."),
    (r"_gate_expand/", ".attn.fc2."),
    (r"_attention/(query|key|value)_kernel$", r".self_attn.\1.weight"),
    (r"_attention/row_embedding$", ".self_attn.pos_embed.height_rel"),
    (r"_attention/column_embedding$", ".self_attn.pos_embed.width_rel"),
    (r"\.(kernel|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"\.moving_mean$", ".running_mean"),
    (r"\.moving_variance$", ".running_var"),
    (
        r"^group(\d+)_block(\d+)",
        lambda m: f"stages.{int(m[1]) - 1}.{int(m[2]) - 1}",
    ),
)


def tensor_name(layer: str, weight: str) -> str:
    """Returns the name of a weight of a layer."""
    return translate(f"{layer}/{weight}", _FROM_OURS)


def standardize(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns tensors with one name for each weight.

    The convolution to keys and values is divided. Convolutions of the attention
    become matrices. Numbers of batches are left out: nothing uses them.
    """
    standardized = {}
    for name, tensor in tensors.items():
        if name.endswith(".num_batches_tracked"):
            continue
        block, attends, part = name.partition(".self_attn.")
        if attends and part == "q.weight":
            standardized[f"{block}.self_attn.query.weight"] = _matrix(
                name, tensor
            )
        elif attends and part == "kv.weight":
            key, value = _keys_and_values(tensors, block, name)
            standardized[f"{block}.self_attn.key.weight"] = key
            standardized[f"{block}.self_attn.value.weight"] = value
        else:
            standardized[name] = tensor
    return standardized


def _matrix(name, tensor):
    if tensor.ndim != 4 or tensor.shape[2:] != (1, 1):
        raise ValueError(
            f"the tensor {name!r} must have the shape (outputs, inputs, 1, 1). "
            f"Received: {tensor.shape}."
        )
    return tensor[:, :, 0, 0]


def _keys_and_values(tensors, block, name):
    """Returns the matrices of keys and of values, `(outputs, inputs)`.

    For each head, the outputs are its key and then its value.
    """
    kernel = _matrix(name, tensors[name])
    others = [
        f"{block}.self_attn.{part}"
        for part in ("q.weight", "pos_embed.height_rel")
    ]
    for other in others:
        if other not in tensors:
            raise ValueError(
                f"the tensor {name!r} needs the tensor {other!r} beside it. "
                f"Received: {len(tensors)} others."
            )
    query, embedding = (tensors[other] for other in others)
    width = embedding.shape[-1]
    heads, rest = divmod(len(query), width)
    if rest or len(kernel) % heads or len(kernel) <= len(query):
        raise ValueError(
            f"the tensor {name!r} must hold a key of {width} channels, as in "
            f"{others[1]!r}, and a value for each head, of which there are "
            f"{len(query)} / {width} in {others[0]!r}. "
            f"Received: {tensors[name].shape}."
        )
    kernel = kernel.reshape(heads, len(kernel) // heads, -1)
    return tuple(
        part.reshape(-1, part.shape[-1])
        for part in (kernel[:, :width], kernel[:, width:])
    )


def _timm(name):
    # The hashes and the revisions are not known.
    return PublishedFile(f"timm/{name}", "main", "model.safetensors")


# Licence of all: Apache-2.0.
PUBLISHED = {
    "HaloNet26T": _timm("halonet26t.a1h_in1k"),
    "HaloNet50TS": _timm("halonet50ts.a1h_in1k"),
    "SEHaloNet33TS": _timm("sehalonet33ts.ra2_in1k"),
    "ECAHaloNeXt26TS": _timm("eca_halonext26ts.c1_in1k"),
}

"""The bottleneck block with any spatial operator."""

from keras import layers

from keras_sasa.applications.basic_layers import convolution, normalization


def bottleneck(
    x, filters, strides, project, spatial_operator, name, output_name=None
):
    """Applies 1x1, spatial operator and 1x1, with a shortcut around them.

    The strides are applied by the spatial operator ("v1.5"), which the
    published numbers of parameters and FLOPs require.

    Args:
        x: Keras tensor, a map.
        filters: Integer, width of the spatial operator; the output is four
            times as wide.
        strides: Integer.
        project: Boolean, whether the shortcut is a 1x1 convolution.
        spatial_operator: Function of a map, the filters, the strides and the
            name of the block.
        name: String that begins the names of the layers.
        output_name: Name of the last layer, if not `"{name}_output"`.

    Returns:
        A Keras tensor.

    Reference:
        [He et al., 2016](https://arxiv.org/abs/1512.03385).
    """
    shortcut = x
    if project:
        shortcut = convolution(
            x, 4 * filters, 1, strides, f"{name}_shortcut_conv"
        )
        shortcut = normalization(shortcut, f"{name}_shortcut_normalization")
    x = convolution(x, filters, 1, 1, f"{name}_reduce_conv")
    x = normalization(x, f"{name}_reduce_normalization")
    x = layers.ReLU(name=f"{name}_reduce_relu")(x)
    x = spatial_operator(x, filters, strides, name)
    x = normalization(x, f"{name}_spatial_normalization")
    x = layers.ReLU(name=f"{name}_spatial_relu")(x)
    x = convolution(x, 4 * filters, 1, 1, f"{name}_expand_conv")
    # Goyal et al., 2017 (https://arxiv.org/abs/1706.02677), section 5.1: a
    # block starts as its shortcut. The paper does not mention it. Without it,
    # gradients about double from one attention block to the previous one:
    # means over windows are much alike, and the normalization amplifies their
    # differences (see `test_gradients_do_not_grow_with_depth`).
    x = normalization(x, f"{name}_expand_normalization", gamma="zeros")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=output_name or f"{name}_output")(x)

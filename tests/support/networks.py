"""Networks whose blocks all take part."""


def open_blocks(model):
    """Returns the network with the last scale of each block at one.

    It starts at zero, which makes a block its shortcut alone: two networks
    with different attention would be equal.
    """
    for layer in model.layers:
        if layer.name.endswith("_expand_normalization"):
            layer.gamma.assign(layer.gamma + 1)
    return model

"""Recipes of classifiers, see `keras_sasa.training.Recipe`.

`published` names the values that the paper states (Ramachandran et al., 2019,
https://arxiv.org/abs/1906.05909). The paper does not give the others.
"""

import dataclasses
import math

from keras_sasa.training.engine.recipe import Recipe

# Section 4.1: 130 epochs, Nesterov, 1.6 for 4096 images per step, 10 epochs of
# warm-up, cosine, both decays 0.9999. The others are usual values for ResNets.
# The weight decay is as strong as an L2 term of 5e-5 under a momentum of 0.9,
# because Keras does not pass it through the momentum. RandAugment has Keras'
# default strength.
IMAGENET = Recipe(
    epochs=130,
    batch_size=4096,
    base_learning_rate=1.6,
    base_batch_size=4096,
    warmup_epochs=10,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.1,
    ema_momentum=0.9999,
    batch_norm_momentum=0.9999,
    image_size=224,
    augmentation="resized_crop",
    flip=True,
    rand_augment_factor=0.5,
    published=(
        "epochs",
        "batch_size",
        "base_learning_rate",
        "base_batch_size",
        "warmup_epochs",
        "optimizer",
        "ema_momentum",
        "batch_norm_momentum",
    ),
)

# Our own values, for small networks that train in minutes.
CIFAR10 = Recipe(
    epochs=15,
    batch_size=128,
    base_learning_rate=4e-3,
    base_batch_size=128,
    warmup_epochs=2,
    optimizer="adamw",
    weight_decay=0.05,
    label_smoothing=0.1,
    ema_momentum=0.995,
    batch_norm_momentum=0.97,
    image_size=32,
    augmentation="shift",
    flip=True,
)
DIGITS = Recipe(
    epochs=25,
    batch_size=32,
    base_learning_rate=6e-3,
    base_batch_size=32,
    warmup_epochs=2.5,
    optimizer="adamw",
    weight_decay=0.02,
    label_smoothing=0.0,
    ema_momentum=0.97,
    batch_norm_momentum=0.97,
    image_size=8,
    augmentation="shift",
    flip=False,
)

RECIPES = {"imagenet": IMAGENET, "cifar10": CIFAR10, "digits": DIGITS}

# How many images `recipe_for` shows to a network in all, and how often each.
_IMAGES_SEEN = 30_000
_MAX_EPOCHS = 60


def recipe_for(num_images: int, side: float) -> Recipe:
    """Returns a recipe for photos, as a starting point.

    Args:
        num_images: Integer, number of training images. Small sets are repeated
            more often, in smaller batches.
        side: Number of pixels, the shorter side of most photos. They are
            resized to 32, 64 or 128 pixels.

    Returns:
        A `Recipe`: `CIFAR10` for tens of thousands of small images.

    Example:

    >>> recipe = recipe_for(num_images=96, side=480)
    >>> recipe.image_size, recipe.batch_size, recipe.epochs
    (128, 16, 60)
    """
    epochs = min(max(_IMAGES_SEEN // num_images, CIFAR10.epochs), _MAX_EPOCHS)
    batch_size = 16
    while batch_size < min(num_images / 32, CIFAR10.batch_size):
        batch_size *= 2
    # With Adam, the learning rate scales with the root of the batch size.
    part = math.sqrt(batch_size / CIFAR10.batch_size)
    return dataclasses.replace(
        CIFAR10,
        epochs=epochs,
        warmup_epochs=round(CIFAR10.warmup_epochs * epochs / CIFAR10.epochs, 2),
        batch_size=batch_size,
        base_learning_rate=CIFAR10.learning_rate * part,
        base_batch_size=batch_size,
        image_size=max(
            [size for size in (64, 128) if size <= side],
            default=CIFAR10.image_size,
        ),
    )

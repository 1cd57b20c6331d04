"""Recipes of detectors, see `keras_sasa.training.Recipe`.

`published` names the values that the paper states (Ramachandran et al., 2019,
https://arxiv.org/abs/1906.05909). The paper does not give the others.
"""

from keras_sasa.training.engine.recipe import Recipe

# Section 4.2: 150 epochs, 64 images per step, a learning rate that grows to
# 0.12 in the first epoch and falls as a cosine, multi-scale jitter, crop to at
# most 640 pixels, horizontal flip.
COCO = Recipe(
    epochs=150,
    batch_size=64,
    base_learning_rate=0.12,
    base_batch_size=64,
    warmup_epochs=1,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=4e-4,
    label_smoothing=0.0,
    ema_momentum=0.9998,
    batch_norm_momentum=0.997,
    image_size=640,
    augmentation="scale_jitter",
    flip=True,
    published=(
        "epochs",
        "batch_size",
        "base_learning_rate",
        "base_batch_size",
        "warmup_epochs",
        "image_size",
        "augmentation",
        "flip",
    ),
)

# Our own values, for small detectors that train in minutes.
BLOOD_CELLS = Recipe(
    epochs=40,
    batch_size=8,
    base_learning_rate=3e-3,
    base_batch_size=8,
    warmup_epochs=2,
    optimizer="adamw",
    weight_decay=0.05,
    label_smoothing=0.0,
    ema_momentum=0.99,
    batch_norm_momentum=0.97,
    image_size=256,
    augmentation="scale_jitter",
    flip=True,
)
DIGIT_SCENES = Recipe(
    epochs=7,
    batch_size=8,
    base_learning_rate=3e-3,
    base_batch_size=8,
    warmup_epochs=1,
    optimizer="adamw",
    weight_decay=0.02,
    label_smoothing=0.0,
    ema_momentum=0.98,
    batch_norm_momentum=0.97,
    image_size=128,
    augmentation="scale_jitter",
    flip=False,
)

RECIPES = {
    "coco": COCO,
    "blood_cells": BLOOD_CELLS,
    "digit_scenes": DIGIT_SCENES,
}

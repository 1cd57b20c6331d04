"""Recipes and named networks: the paper's values, and their effects."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa.applications import CONFIGURATIONS, ResNet
from keras_sasa.data import ImageData
from keras_sasa.training import (
    CIFAR10,
    DIGITS,
    IMAGENET,
    build_model,
    recipe_for,
)

# Section 4.1, written down a second time.
PAPER = {
    "epochs": 130,
    "batch_size": 4096,
    "base_learning_rate": 1.6,
    "base_batch_size": 4096,
    "warmup_epochs": 10,
    "optimizer": "sgd",
    "ema_momentum": 0.9999,
    "batch_norm_momentum": 0.9999,
}


def test_values_of_the_paper():
    assert set(IMAGENET.published) == set(PAPER)
    for name, value in PAPER.items():
        assert getattr(IMAGENET, name) == value
    assert CIFAR10.published == DIGITS.published == ()


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        IMAGENET.epochs = 1


def test_learning_rate_is_scaled_with_the_batch():
    recipe = dataclasses.replace(IMAGENET, batch_size=256)
    assert recipe.learning_rate == pytest.approx(0.1)


def test_batch_that_is_larger_than_the_images_is_reduced():
    assert CIFAR10.limit_batch_size(128, num_replicas=3) is CIFAR10
    with pytest.warns(
        UserWarning,
        match="`batch_size` is reduced from 128 to 96, .* 97 images",
    ):
        recipe = CIFAR10.limit_batch_size(97, num_replicas=4)
    assert recipe == dataclasses.replace(CIFAR10, batch_size=96)
    assert recipe.learning_rate == pytest.approx(CIFAR10.learning_rate * 0.75)
    with pytest.raises(ValueError, match="each of the 4 devices.*: 3 images"):
        CIFAR10.limit_batch_size(3, num_replicas=4)


def test_recipe_for_photos():
    assert recipe_for(45_000, 32) == CIFAR10
    previous = None
    for number in (1, 96, 500, 3_000, 20_000, 1_000_000):
        recipe = recipe_for(number, 480)
        assert recipe.image_size == 128
        if previous:
            assert recipe.epochs <= previous.epochs
            assert recipe.batch_size >= previous.batch_size
        previous = recipe
    sides = [8, 32, 63, 64, 100, 128, 3_000]
    sizes = [recipe_for(96, side).image_size for side in sides]
    assert sizes == [32, 32, 32, 64, 64, 128, 128]


def test_schedule():
    """Linear from 0 in the warm-up, then half a cosine to 0."""
    schedule = IMAGENET.make_schedule(steps_per_epoch=10)
    rate = [float(schedule(step)) for step in (0, 50, 100, 700, 1300)]
    half = 1.6 * (1 + math.cos(math.pi / 2)) / 2
    np.testing.assert_allclose(rate, [0, 0.8, 1.6, half, 0], atol=1e-6)


def test_schedule_without_warmup():
    recipe = dataclasses.replace(DIGITS, warmup_epochs=0)
    schedule = recipe.make_schedule(steps_per_epoch=4)
    assert float(schedule(0)) == pytest.approx(recipe.learning_rate)
    assert float(schedule(4 * recipe.epochs)) == pytest.approx(0)


@pytest.mark.parametrize("recipe", [IMAGENET, CIFAR10, DIGITS])
def test_optimizer(recipe):
    optimizer = recipe.make_optimizer(steps_per_epoch=3)
    config = optimizer.get_config()
    assert type(optimizer).__name__.lower() == f"averaging{recipe.optimizer}"
    assert config["use_ema"] and config["ema_momentum"] == recipe.ema_momentum
    assert config["weight_decay"] == recipe.weight_decay
    if recipe.optimizer == "sgd":
        assert config["nesterov"] and config["momentum"] == recipe.momentum


def apply(optimizer, gradient, weight):
    """One step, as the training loop of the backend does it."""
    if keras.backend.backend() != "jax":
        optimizer.apply([gradient], [weight])
        return
    (value,), values = optimizer.stateless_apply(
        [variable.value for variable in optimizer.variables],
        [gradient],
        [weight.value],
    )
    weight.assign(value)
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)


def averaged(recipe, gradients, scaled=False, saved_after=None):
    """Returns a weight and its average after each step, including the first."""
    weight = keras.Variable(1.0)
    optimizer = recipe.make_optimizer(steps_per_epoch=len(gradients))
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build([weight])
    values = []
    for step, gradient in enumerate(gradients):
        if step == saved_after:
            # As in a file.
            variables = [np.array(v) for v in optimizer.variables]
            optimizer = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(optimizer)
            )
            optimizer.build([weight])
            for variable, value in zip(
                optimizer.variables, variables, strict=True
            ):
                variable.assign(value)
        scale = 2.0**15 if scaled else 1.0
        apply(optimizer, keras.ops.convert_to_tensor(gradient * scale), weight)
        inner = optimizer.inner_optimizer if scaled else optimizer
        (average,) = inner._model_variables_moving_average
        values.append((float(weight), float(average)))
    return values


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_average(optimizer, scaled):
    """The momentum grows as step / (step + 9), to 0.75 in step 27."""
    recipe = dataclasses.replace(
        DIGITS, optimizer=optimizer, ema_momentum=0.75, warmup_epochs=0
    )
    gradients = np.random.default_rng(0).normal(size=40)
    values = averaged(recipe, gradients, scaled, saved_after=20)
    expected = 0.0
    for step, (weight, average) in enumerate(values):
        momentum = min(0.75, step / (step + 9))
        expected = momentum * expected + (1 - momentum) * weight
        assert average == pytest.approx(expected, rel=1e-5)
    # The numbers come from a real run, with an average of its own.
    assert len({weight for weight, _ in values}) == 40
    assert values[-1][0] != values[-1][1]


def test_average_forgets_the_initial_weights():
    """Keras' own average has 30 % of them left after these 240 steps."""
    recipe = dataclasses.replace(
        CIFAR10, optimizer="sgd", momentum=0.0, weight_decay=0.0
    )
    recipe = dataclasses.replace(
        recipe, warmup_epochs=0, base_learning_rate=1.0
    )
    # The weight is 1 for a tenth of the run, and then 0.
    values = averaged(recipe, [0.0] * 24 + [1.0] + [0.0] * 215)
    assert values[23] == (1.0, pytest.approx(1.0))
    assert values[-1] == (
        pytest.approx(0.0, abs=1e-3),
        pytest.approx(0.0, abs=1e-3),
    )


def test_no_weight_decay_of_biases_and_normalization():
    """A step of gradients of zero shrinks the kernel and nothing else."""
    recipe = dataclasses.replace(
        IMAGENET, base_learning_rate=1.0, warmup_epochs=0, weight_decay=0.1
    )
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, bias_initializer="ones"),
            keras.layers.BatchNormalization(beta_initializer="ones"),
        ]
    )
    optimizer = recipe.make_optimizer(steps_per_epoch=1)
    variables = model.trainable_variables
    before = [np.array(variable) for variable in variables]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros_like(v) for v in variables], variables)
    for variable, old in zip(variables, before, strict=True):
        scale = 0.9 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(np.array(variable), scale * old, rtol=1e-6)


@pytest.mark.parametrize(
    "changes, steps_per_epoch, expected",
    [
        # As published: 1.28 million images in batches of 4096.
        ({}, 312, 0.9999),
        ({"epochs": 30}, 8, 1 - 4 / 240),
        ({"epochs": 1, "warmup_epochs": 0}, 3, 0.0),
    ],
)
def test_momentum_of_batch_normalization(changes, steps_per_epoch, expected):
    recipe = dataclasses.replace(IMAGENET, **changes)
    momentum = recipe.limit_batch_norm_momentum(steps_per_epoch)
    assert momentum == pytest.approx(expected, abs=1e-9)


def test_loss_smooths_labels():
    dataset = tf.data.Dataset.range(9)
    data = ImageData(dataset, dataset, ["a", "b"])
    recipe = dataclasses.replace(IMAGENET, image_size=8, batch_size=3)
    network = {"num_blocks": (1,), "stem": "small", "width_multiplier": 1 / 16}
    loss = build_model(network, data, recipe).loss
    value = loss(np.array([[1.0, 0.0]]), np.array([[0.8, 0.2]]))
    expected = -0.95 * math.log(0.8) - 0.05 * math.log(0.2)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_describe_marks_what_is_the_papers():
    lines = IMAGENET.describe().splitlines()
    marked = {line.split()[0] for line in lines if line.endswith("(paper)")}
    assert marked == set(PAPER)
    assert any("= base_learning_rate * batch_size" in line for line in lines)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"batch_size": 1.5}, "`batch_size` must be a positive integer"),
        ({"warmup_epochs": 200}, "`warmup_epochs` must be less than the 130"),
        ({"weight_decay": -1}, "`weight_decay` must be 0 or above"),
        ({"ema_momentum": 2}, "`ema_momentum` must be from 0 to 1"),
        ({"optimizer": "lamb"}, "`optimizer` must be one of .*Received: opt"),
        ({"augmentation": "no"}, "`augmentation` must be one of"),
    ],
)
def test_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(IMAGENET, **change)


def test_every_ablation_of_the_paper_has_a_name():
    assert len(CONFIGURATIONS) == len(set(map(str, CONFIGURATIONS.values())))
    names = set(CONFIGURATIONS)
    for depth in (26, 38, 50):
        for kind in ("conv", "attention", "full_attention"):
            assert f"resnet{depth}_{kind}" in names
    assert CONFIGURATIONS["resnet50_conv12_attention34"]["spatial"] == (
        "conv",
        "conv",
        "attention",
        "attention",
    )
    assert CONFIGURATIONS["resnet50_kernel11"]["kernel_size"] == 11
    assert CONFIGURATIONS["resnet50_position_only"]["use_content"] is False


@pytest.mark.parametrize(
    "name", [name for name in CONFIGURATIONS if not name.startswith("resnet")]
)
def test_small_networks_build(name):
    side = 8 if name.startswith("digits") else 32
    model = ResNet(
        **CONFIGURATIONS[name], input_shape=(side, side, 3), classes=10
    )
    assert model.output_shape == (None, 10)

"""Recipes: what a training consists of besides the network and the images.

The values of `IMAGENET` that the paper states (Ramachandran et al., 2019,
https://arxiv.org/abs/1906.05909, section 4.1) are named in its `published`;
the paper is silent about all others, and they are ours. What a recipe makes is
Keras' own: schedule, optimizer with moving averages of the weights, loss.
"""

import dataclasses
import math
import warnings

import keras

from keras_sasa.optimizers import AveragingAdamW, AveragingSGD

OPTIMIZERS = ("sgd", "adamw")
AUGMENTATIONS = ("shift", "resized_crop", "scale_jitter")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train, as values; variants come from `dataclasses.replace`.

    Args:
        epochs: Integer, passes over the images.
        batch_size: Integer, images of one step, of all devices together.
        base_learning_rate: Float, the highest learning rate at
            `base_batch_size` images a step.
        base_batch_size: Integer. The learning rate is scaled with the batch:
            `base_learning_rate * batch_size / base_batch_size`.
        warmup_epochs: Number, epochs in which the learning rate grows linearly
            from 0; a cosine takes it back to 0 after them.
        optimizer: `"sgd"` (Nesterov) or `"adamw"`.
        momentum: Float, of `"sgd"`.
        weight_decay: Float, decoupled as in `keras.optimizers`: a weight
            shrinks by `learning_rate * weight_decay` of itself in each step.
            Not for biases and batch normalization.
        label_smoothing: Float from 0 to 1.
        ema_momentum: Float, decay of the exponential moving average of the
            weights with which the network is validated and saved. It grows
            from 0 to this value, `step / (step + 9)` until it is reached, so
            that short trainings forget the initial weights, too.
        batch_norm_momentum: Float, decay of the moving mean and variance. In
            trainings of few steps it is lower, see `limit_batch_norm_momentum`.
        image_size: Integer, height and width in pixels.
        augmentation: `"shift"` (the middle square is resized, then moved by up
            to an eighth of its side), `"resized_crop"` (a random part of 8 to
            100 % of the area, its sides 3:4 to 4:3, is resized), or for
            detection `"scale_jitter"` (images are resized to 80 to 120 % of
            `image_size`, and what is larger than that is cut at random).
        flip: Boolean, whether to mirror every second image.
        rand_augment_factor: Float from 0 to 1, strength of the two operations
            of RandAugment; 0 for none.
        published: Tuple of the names of those values that are the paper's.

    Raises:
        ValueError: If a value is outside what is allowed above.

    Example:

    >>> import dataclasses
    >>> from keras_sasa.training import IMAGENET
    >>> recipe = dataclasses.replace(IMAGENET, epochs=90, batch_size=256)
    >>> recipe.learning_rate
    0.1
    """

    epochs: int
    batch_size: int
    base_learning_rate: float
    base_batch_size: int
    warmup_epochs: float
    optimizer: str
    weight_decay: float
    label_smoothing: float
    ema_momentum: float
    batch_norm_momentum: float
    image_size: int
    augmentation: str
    flip: bool
    momentum: float = 0.9
    rand_augment_factor: float = 0.0
    published: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("epochs", "batch_size", "base_batch_size", "image_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise _error(name, value, "a positive integer")
        for name in ("base_learning_rate", "weight_decay", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise _error(name, getattr(self, name), "0 or above")
        if self.warmup_epochs >= self.epochs:
            raise _error(
                "warmup_epochs",
                self.warmup_epochs,
                f"less than the {self.epochs} epochs of all",
            )
        for name in (
            "momentum",
            "label_smoothing",
            "ema_momentum",
            "batch_norm_momentum",
            "rand_augment_factor",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise _error(name, getattr(self, name), "from 0 to 1")
        if self.optimizer not in OPTIMIZERS:
            raise _error("optimizer", self.optimizer, f"one of {OPTIMIZERS}")
        if self.augmentation not in AUGMENTATIONS:
            raise _error(
                "augmentation", self.augmentation, f"one of {AUGMENTATIONS}"
            )

    @property
    def learning_rate(self):
        """The highest learning rate: linear in the number of images a step."""
        return self.base_learning_rate * self.batch_size / self.base_batch_size

    def reduced_to(self, num_train, num_replicas=1):
        """Returns a recipe whose batch is not larger than the images.

        Args:
            num_train: Integer, images to train with.
            num_replicas: Integer, devices that share a batch.

        Returns:
            This recipe, or, after a warning, one of the largest batch that the
            images fill and the devices can share. Its learning rate is smaller
            in the same proportion.

        Raises:
            ValueError: If there are fewer images than devices.
        """
        if self.batch_size <= num_train:
            return self
        batch_size = num_train // num_replicas * num_replicas
        if not batch_size:
            raise ValueError(
                f"There must be an image to train with for each of the "
                f"{num_replicas} devices. Received: {num_train} images."
            )
        warnings.warn(
            f"`batch_size` is reduced from {self.batch_size} to {batch_size}, "
            f"and the learning rate with it, because there are {num_train} "
            "images to train with.",
            stacklevel=3,
        )
        return dataclasses.replace(self, batch_size=batch_size)

    def make_schedule(self, steps_per_epoch):
        """Returns the learning rate of each step as a Keras schedule."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        steps = self.epochs * steps_per_epoch
        # A warm-up of no steps is one without a target.
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else self.learning_rate,
            decay_steps=steps - warmup,
            warmup_target=self.learning_rate if warmup else None,
            warmup_steps=warmup,
        )

    def limit_batch_norm_momentum(self, steps_per_epoch):
        """Returns the decay of mean and variance for a number of steps.

        It is at most `1 - 4 / steps`, so that not more than 2 % of the initial
        mean of 0 and variance of 1 are left at the end of the training.
        """
        steps = self.epochs * steps_per_epoch
        return min(self.batch_norm_momentum, max(0.0, 1 - 4 / steps))

    def make_optimizer(self, steps_per_epoch):
        """Returns an optimizer that keeps an average of the weights."""
        schedule = self.make_schedule(steps_per_epoch)
        common = {
            "weight_decay": self.weight_decay or None,
            "use_ema": True,
            "ema_momentum": self.ema_momentum,
        }
        if self.optimizer == "sgd":
            optimizer = AveragingSGD(
                schedule, momentum=self.momentum, nesterov=True, **common
            )
        else:
            optimizer = AveragingAdamW(schedule, **common)
        if self.weight_decay:
            optimizer.exclude_from_weight_decay(
                var_names=["bias", "gamma", "beta"]
            )
        return optimizer

    def make_loss(self):
        """Returns the loss of one-hot labels and probabilities."""
        return keras.losses.CategoricalCrossentropy(
            label_smoothing=self.label_smoothing
        )

    def describe(self):
        """Returns each value as one line of text, the paper's marked."""
        lines = []
        for field in dataclasses.fields(self):
            if field.name != "published":
                mark = "  (paper)" if field.name in self.published else ""
                value = getattr(self, field.name)
                lines.append(f"{field.name:20} {value}{mark}")
                if field.name == "base_batch_size":
                    lines.append(
                        f"{'learning_rate':20} {self.learning_rate:.6g} = "
                        "base_learning_rate * batch_size / base_batch_size"
                    )
        return "\n".join(lines)


# How many times images are seen in a training with `recipe_for`, in all, and
# each of them.
_IMAGES_SEEN = 30_000
_MOST_EPOCHS = 60


def _error(name, value, allowed):
    return ValueError(
        f"`{name}` must be {allowed}. Received: {name}={value!r}."
    )


# Section 4.1: 130 epochs, Nesterov, 1.6 for 4096 images a step, 10 epochs of
# warm-up, cosine, both decays 0.9999. The rest are usual values for ResNets.
# The weight decay is as strong as an L2 term of 5e-5 under a momentum of 0.9,
# since Keras does not pass it through the momentum; RandAugment as Keras'
# default.
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

# All ours, for small networks of minutes.
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


def recipe_for(num_images, side):
    """Returns a recipe for photos, as a start.

    Args:
        num_images: Integer, photos to train with. Few are seen more often, in
            smaller batches.
        side: Number of pixels, the shorter side of most photos. They are
            resized to 32, 64 or 128 pixels.

    Returns:
        A `Recipe`: `CIFAR10` for tens of thousands of small images.

    Example:

    >>> recipe = recipe_for(num_images=96, side=480)
    >>> recipe.image_size, recipe.batch_size, recipe.epochs
    (128, 16, 60)
    """
    epochs = min(max(_IMAGES_SEEN // num_images, CIFAR10.epochs), _MOST_EPOCHS)
    batch_size = 16
    while batch_size < min(num_images / 32, CIFAR10.batch_size):
        batch_size *= 2
    # Adam's steps suit the square root of the batch.
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

"""Recipes: the values of a training run, besides the network and the images.

Schedules and optimizers are Keras' own. The tasks have the recipes, such as
`keras_sasa.training.classification.recipes`.
"""

import dataclasses

import keras

from keras_sasa._user_warnings import warn_user
from keras_sasa.data.augmentation import AUGMENTATIONS
from keras_sasa.optimizers import AveragingAdamW, AveragingSGD

OPTIMIZERS = ("sgd", "adamw")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train, as values; `dataclasses.replace` makes variants.

    Args:
        epochs: Integer, passes over the images.
        batch_size: Integer, images per step on all devices together.
        base_learning_rate: Float, the peak learning rate with
            `base_batch_size` images per step.
        base_batch_size: Integer. The learning rate scales with the batch:
            `base_learning_rate * batch_size / base_batch_size`.
        warmup_epochs: Number, epochs in which the learning rate grows linearly
            from 0; a cosine takes it back to 0 afterwards.
        optimizer: `"sgd"` (Nesterov) or `"adamw"`.
        momentum: Float, of `"sgd"`.
        weight_decay: Float, decoupled as in `keras.optimizers`: a weight
            shrinks by `learning_rate * weight_decay` of itself in each step.
            It does not apply to biases and batch normalization.
        label_smoothing: Float from 0 to 1, for classifiers.
        ema_momentum: Float, decay of the exponential moving average of the
            weights, with which the network is validated and saved. It grows
            from 0 to this value as `step / (step + 9)`, so that short runs
            forget the initial weights, too.
        batch_norm_momentum: Float, decay of the moving mean and variance. It
            is lower in runs of few steps, see `limit_batch_norm_momentum`.
        image_size: Integer, height and width in pixels.
        augmentation: A name of `keras_sasa.data.augmentation.AUGMENTATIONS`:
            `"shift"` (the middle square, moved by up to an eighth of its
            side), `"resized_crop"` (a random part of 8 to 100 % of the area
            with sides of 3:4 to 4:3), or for detectors `"scale_jitter"`
            (images are resized to 80 to 120 % of `image_size`, and larger ones
            are cropped at random).
        flip: Boolean, whether to mirror images with a probability of one half.
        rand_augment_factor: Float from 0 to 1, for classifiers: strength of
            the two operations of RandAugment; 0 for none.
        published: Tuple of the names of the values that the paper states.

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
                f"less than the {self.epochs} epochs of the run",
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
                "augmentation",
                self.augmentation,
                f"one of {tuple(AUGMENTATIONS)}",
            )

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: linear in the number of images per step."""
        return self.base_learning_rate * self.batch_size / self.base_batch_size

    @property
    def resizing(self) -> str:
        """How images are resized for evaluation, see `ImageRescaling`."""
        return AUGMENTATIONS[self.augmentation].resizing

    def limit_batch_size(
        self, num_train: int, num_replicas: int = 1
    ) -> "Recipe":
        """Returns a recipe whose batch is not larger than the training set.

        Args:
            num_train: Integer, number of training images.
            num_replicas: Integer, devices that share a batch.

        Returns:
            This recipe, or, after a warning, one with the largest batch that
            the images fill and the devices can share. Its learning rate is
            reduced in the same proportion.

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
        warn_user(
            f"`batch_size` is reduced from {self.batch_size} to {batch_size}, "
            f"and the learning rate with it, because there are {num_train} "
            "images to train with."
        )
        return dataclasses.replace(self, batch_size=batch_size)

    def make_schedule(
        self, steps_per_epoch: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """Returns the learning rate of each step as a Keras schedule."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        steps = self.epochs * steps_per_epoch
        # Keras expects no target for a warm-up of no steps.
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else self.learning_rate,
            decay_steps=steps - warmup,
            warmup_target=self.learning_rate if warmup else None,
            warmup_steps=warmup,
        )

    def limit_batch_norm_momentum(self, steps_per_epoch: int) -> float:
        """Returns the decay of mean and variance for a number of steps.

        It is at most `1 - 4 / steps`, so that at most 2 % of the initial mean
        of 0 and variance of 1 are left at the end of the run.
        """
        steps = self.epochs * steps_per_epoch
        return min(self.batch_norm_momentum, max(0.0, 1 - 4 / steps))

    def make_optimizer(
        self, steps_per_epoch: int
    ) -> keras.optimizers.Optimizer:
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

    def describe(self) -> str:
        """Returns each value as a line of text; the paper's are marked."""
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


def _error(name, value, allowed):
    return ValueError(
        f"`{name}` must be {allowed}. Received: {name}={value!r}."
    )

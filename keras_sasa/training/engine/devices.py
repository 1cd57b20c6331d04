"""Where a model is trained: on one device, several, a TPU, or many machines."""

import contextlib
import dataclasses
import os

import keras
import numpy as np
import tensorflow as tf

STRATEGIES = ("none", "mirrored", "tpu", "data_parallel")


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run, see `make_devices`.

    Args:
        name: One of `STRATEGIES`.
        num_replicas: Integer, devices that share a batch.
        strategy: `tf.distribute.Strategy` or `None`.
        shard: Pair `(index, count)`: the index of this process and the number
            of processes.
    """

    name: str = "none"
    num_replicas: int = 1
    strategy: tf.distribute.Strategy | None = None
    shard: tuple[int, int] = (0, 1)

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns the context in which a model is built and compiled."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return self.strategy.scope()

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files."""
        return self.shard[0] == 0

    def barrier(self) -> None:
        """Returns when all processes have called it."""
        if self.shard[1] > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("keras_sasa")

    def check_equal(self, value: int, description: str) -> None:
        """Checks that all processes have read the same number.

        Args:
            value: Integer.
            description: String that names it.

        Raises:
            ValueError: If another process has another value.
        """
        if self.shard[1] > 1:
            from jax.experimental import multihost_utils

            values = multihost_utils.process_allgather(np.array(value))
            if len(set(values.tolist())) > 1:
                raise ValueError(
                    f"All processes must read the same {description}: all "
                    "machines must see the folder of the run. Received: "
                    f"{values.tolist()}, by process."
                )

    def describe(self) -> str:
        """Returns a text such as `"mirrored, 2 devices"`."""
        text = f"{self.name}, {self.num_replicas} device"
        text += "s" if self.num_replicas > 1 else ""
        index, count = self.shard
        return text + (f", process {index} of {count}" if count > 1 else "")


def make_devices(name: str = "none", tpu: str | None = None) -> Devices:
    """Finds the devices to train on.

    Args:
        name: `"none"` (Keras' default device), `"mirrored"`
            (`tf.distribute.MirroredStrategy`: all GPUs of this machine, or all
            logical CPUs if it has none), `"tpu"` (`tf.distribute.TPUStrategy`)
            or `"data_parallel"` (`keras.distribution`, with Keras on JAX: all
            devices of all machines; call it before any computation). The
            machines find each other through the environment variables that
            `keras.distribution.initialize` reads:
            `KERAS_DISTRIBUTION_JOB_ADDRESSES`,
            `KERAS_DISTRIBUTION_NUM_PROCESSES` and
            `KERAS_DISTRIBUTION_PROCESS_ID`.
        tpu: String, name or address of the TPU. Default: the TPU of this
            machine.

    Returns:
        A `Devices`.

    Raises:
        ValueError: If `name` is unknown, or does not suit Keras' backend.
        ConnectionError: If the TPU cannot be reached.
    """
    if name not in STRATEGIES:
        raise ValueError(
            f"`name` must be one of {STRATEGIES}. Received: name={name!r}."
        )
    backend = keras.backend.backend()
    if name == "none":
        return Devices()
    needed = "jax" if name == "data_parallel" else "tensorflow"
    if backend != needed:
        raise ValueError(
            f"The strategy {name!r} needs Keras on {needed} "
            f"(KERAS_BACKEND={needed}). Received: a backend of {backend!r}."
        )
    if name == "data_parallel":
        return _data_parallel()
    strategy = _mirrored() if name == "mirrored" else _tpu(tpu or "")
    return Devices(name, strategy.num_replicas_in_sync, strategy)


def _mirrored():
    if tf.config.list_logical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    cpus = tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in cpus])


def _tpu(name):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:
        # A missing address, an unreachable TPU and a missing library raise
        # errors of different types.
        reason = str(error).strip().partition("\n")[0]
        raise ConnectionError(
            f"The TPU {name or 'of this machine'!r} cannot be reached: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _data_parallel():
    import jax

    alone = "KERAS_DISTRIBUTION_NUM_PROCESSES" not in os.environ
    if not (alone or jax.distributed.is_initialized()):
        keras.distribution.initialize()
    distribution = keras.distribution.DataParallel(
        # The input pipeline shards the images already.
        auto_shard_dataset=False
    )
    keras.distribution.set_distribution(distribution)
    return Devices(
        "data_parallel",
        distribution.device_mesh.shape[0],
        shard=(jax.process_index(), jax.process_count()),
    )


def check_supported(
    model: keras.Model, devices: Devices, batch_size: int
) -> None:
    """Rejects unsupported configurations before training starts.

    Args:
        model: A compiled model.
        devices: A `Devices`.
        batch_size: Integer, images per step on all devices together.

    Raises:
        ValueError: If the devices cannot share the batch equally, or if the
            strategy does not support an option of `compile`.
    """
    if batch_size % devices.num_replicas:
        raise ValueError(
            f"`batch_size` must be a multiple of the {devices.num_replicas} "
            f"devices. Received: batch_size={batch_size}."
        )
    if devices.name != "mirrored":
        return
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    unsupported = {
        # Each one raises an error in Keras 3.15 on TensorFlow 2.21.
        "jit_compile=True": model.jit_compile,
        "steps_per_execution above 1": model.steps_per_execution > 1,
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "ema_overwrite_frequency": optimizer.ema_overwrite_frequency,
    }
    for option, is_set in unsupported.items():
        if is_set:
            raise ValueError(
                f"Keras cannot train with {option} under MirroredStrategy. "
                "Omit it, or train on one device."
            )

"""Whole training runs: learning, saving, resuming, and clear errors.

Programs that are killed or need other devices run in processes of their own.
"""

import concurrent.futures
import csv
import dataclasses
import errno
import importlib.util
import json
import pathlib
import resource
import shutil
import signal
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sasa import training
from keras_sasa.data import DetectionData, evaluation_batches, load_data
from keras_sasa.training import DIGITS, Run, fit
from tests.support import process
from tests.support.digits_training import NETWORK, RECIPE, digits, train
from tests.support.images import image_folder
from tests.support.networks import linear_classifier
from tests.support.parameters import large

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a feature of TensorFlow"
)

WRITTEN = {
    "best.keras",
    "history.csv",
    "model.keras",
    "state-0003.weights.h5",
    "state.json",
}
# TensorBoard's callback takes seconds to import; `test_fit` has it.
PREAMBLE = """
    import json, sys
    sys.modules["tensorboard"] = None
    import tensorflow as tf
"""
# In the place of any network, in processes of their own.
LINEAR = """
    def replace_network(network):
        from keras_sasa import training
        from tests.support.networks import linear_classifier
        if network == "linear":
            training.fit.__globals__["ResNet"] = linear_classifier
"""


@pytest.fixture
def without_tensorboard(monkeypatch):
    """Its callback takes seconds; one test uses it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name == "tensorboard" else find(name),
    )


@pytest.fixture
def linear_network(monkeypatch):
    """A linear model in the place of any network; it compiles faster."""
    monkeypatch.setitem(fit.__globals__, "ResNet", linear_classifier)


def assert_weights_equal(model, other):
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(two))


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that several tests read and none changes.

    Attributes:
        folder: Path of its files.
        model: The model.
        history: List of dicts.
        traced: Names of the steps that were traced, with a spec of the images.
    """

    folder: pathlib.Path
    model: keras.Model
    history: list
    traced: list


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("tensorboard")
    folder, traced = tmp_path_factory.mktemp("trained"), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("train_step", "test_step"):
            original = getattr(keras.Model, name)

            def spy(self, data, *args, name=name, original=original, **kwargs):
                traced.append((name, tf.nest.flatten(data)[0].shape))
                return original(self, data, *args, **kwargs)

            if keras.backend.backend() == "tensorflow":
                patch.setattr(keras.Model, name, spy)
        model, history = fit(NETWORK, digits(), RECIPE, folder, verbose=0)
    return Trained(folder, model, history, traced)


def test_fit(trained):
    folder, model, history = trained.folder, trained.model, trained.history
    assert {path.name for path in folder.iterdir()} == WRITTEN | {"logs"}
    assert {path.name for path in (folder / "logs").iterdir()} == {
        "train",
        "validation",
    }
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]

    loaded = keras.saving.load_model(folder / "model.keras")
    assert_weights_equal(loaded, model)
    results = loaded.evaluate(
        evaluation_batches(digits(), RECIPE, 32),
        verbose=0,
        return_dict=True,
    )
    # The reported accuracy belongs to the averaged weights.
    for name, value in results.items():
        assert history[-1][f"val_{name}"] == pytest.approx(value, rel=1e-5)

    with open(folder / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [
        row["loss"] for row in history
    ]
    recipe, classes = training.read_training(folder)
    assert classes == digits().class_names
    assert dataclasses.asdict(recipe) == dataclasses.asdict(RECIPE) | {
        "published": []
    }


def test_averages_are_saved(trained):
    """The optimizer's averages become the weights of the file."""
    other = training.build_model(NETWORK, digits(), RECIPE)
    other.load_weights(trained.folder / "state-0003.weights.h5")
    averages = other.optimizer._model_variables_moving_average
    for weight, raw, average in zip(
        trained.model.trainable_variables,
        other.trainable_variables,
        averages,
        strict=True,
    ):
        np.testing.assert_array_equal(np.array(weight), np.array(average))
        assert (np.array(raw) != np.array(average)).any()


def test_best_is_kept(
    tmp_path, linear_network, without_tensorboard, monkeypatch
):
    """The best of three epochs is the first: 0.5, 0.2, 0.4."""
    original = training.Run.save
    values = iter((0.5, 0.2, 0.4))

    def save(self, model, logs):
        original(self, model, {**logs, "val_accuracy": next(values)})

    monkeypatch.setattr(training.Run, "save", save)
    model, _ = fit(NETWORK, digits(), RECIPE, tmp_path, verbose=0)
    names = {path.name for path in tmp_path.glob("state-*")}
    assert names == {"state-0001.weights.h5", "state-0003.weights.h5"}
    best = keras.saving.load_model(tmp_path / "best.keras")
    last = keras.saving.load_model(tmp_path / "model.keras")
    assert_weights_equal(last, model)
    assert any(
        (np.array(a) != np.array(b)).any()
        for a, b in zip(best.weights, last.weights, strict=True)
    )


def test_the_recipe_reaches_the_layers():
    model = training.build_model(NETWORK, digits(), RECIPE)
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert layers
    for layer in layers:
        # Of 15 steps in all.
        assert layer.momentum == pytest.approx(1 - 4 / 15)
        assert not layer.synchronized
    scale = model.get_layer("scale")
    np.testing.assert_array_equal(scale(np.array([0.0, 16.0])), [-1, 1])


@on_tensorflow
def test_one_compilation_for_training_and_one_for_validation(trained):
    """All batches have one shape, the padded last one too: XLA of a TPU would
    compile each shape anew."""
    assert sorted(name for name, _ in trained.traced) == [
        "test_step",
        "train_step",
    ]
    for _, shape in trained.traced:
        assert None not in shape


def kill(folder, network, steps, epochs):
    program = """
    from tests.support.digits_training import kill_after, train
    folder, network, steps, epochs = sys.argv[1:]
    replace_network(network)
    kill_after(int(steps))
    train(folder, epochs=int(epochs))
    """
    code = process.run_until_killed(
        PREAMBLE + LINEAR + program, folder, network, steps, epochs
    )
    assert code == -signal.SIGKILL


def assert_same_bits(folder, other, epochs):
    """A resumed run ends like one that was never killed."""
    assert train(folder, epochs=epochs) == train(other, epochs=epochs)
    assert (folder / "history.csv").read_bytes() == (
        other / "history.csv"
    ).read_bytes()


def test_killed_it_ends_with_the_same_bits(
    tmp_path, linear_network, without_tensorboard
):
    """Killed in the middle of the second epoch."""
    kill(tmp_path / "killed", "linear", 8, epochs=2)
    assert (tmp_path / "killed" / "state-0001.weights.h5").exists()
    assert_same_bits(tmp_path / "killed", tmp_path / "whole", epochs=2)


@pytest.mark.large
def test_killed_twice_it_ends_with_the_same_bits(tmp_path, without_tensorboard):
    """Killed in the middle of the second epoch, then of the third."""
    folder = tmp_path / "killed"
    kill(folder, "attention", 8, epochs=3)
    kill(folder, "attention", 13, epochs=3)
    assert json.loads((folder / "state.json").read_text())["epochs_done"] == 2
    assert_same_bits(folder, tmp_path / "whole", epochs=3)


def test_a_training_that_is_done_is_not_done_again(trained):
    again, same = fit(
        NETWORK, digits(), RECIPE, trained.folder, verbose=0, resume=True
    )
    assert same == trained.history
    assert_weights_equal(again, trained.model)


def assert_near(history, expected, tolerance):
    for one, other in zip(expected, history, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(
                value, abs=tolerance, rel=tolerance
            )


@on_tensorflow
@pytest.mark.parametrize(
    "network, number",
    [("linear", 2), large("attention", 2), large("attention", 4)],
)
def test_mirrored_strategy(tmp_path, network, number):
    """Several virtual CPUs compute the losses of one."""
    program = """
    folder, network, number = sys.argv[1:]
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(number),
    )
    replace_network(network)
    from keras_sasa import training
    from tests.support.digits_training import train
    histories = [
        train(
            f"{folder}/{name}",
            training.make_devices(name),
            epochs=2,
            optimizer="sgd",
        )[0]
        for name in ("none", "mirrored")
    ]
    print(json.dumps(histories))
    """
    (alone, several), _ = process.run(
        PREAMBLE + LINEAR + program, tmp_path, network, number
    )
    assert_near(several, alone, 1e-5)


MACHINE = """
    import keras
    from keras_sasa import training
    replace_network(sys.argv[2])
    # Before the images, which are tensors of TensorFlow, not of JAX.
    devices = training.make_devices("data_parallel")
    from tests.support.digits_training import train
    results = [train(f"{sys.argv[1]}/two", devices, epochs=2, optimizer="sgd")]
    if devices.shard[0] == 0:
        # The other machine is no longer needed.
        keras.distribution.set_distribution(None)
        alone = training.make_devices("none")
        folder = f"{sys.argv[1]}/one"
        results.append(train(folder, alone, epochs=2, optimizer="sgd"))
    print(json.dumps(results))
"""


@pytest.mark.parametrize("network", ["linear", large("attention")])
def test_several_machines(tmp_path, network):
    """Two processes with Keras on JAX, over loopback."""
    pytest.importorskip("jax")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = [
            pool.submit(
                process.run,
                PREAMBLE + LINEAR + MACHINE,
                tmp_path,
                network,
                KERAS_BACKEND="jax",
                XLA_FLAGS=process.FASTER_COMPILATION,
                KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
                KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                KERAS_DISTRIBUTION_PROCESS_ID=str(number),
            )
            for number in range(2)
        ]
    (([first, weights], [alone, _]), _), (([second, same_weights],), _) = (
        program.result() for program in started
    )
    assert first == second and weights == same_weights
    assert_near(first, alone, 1e-4)
    assert (tmp_path / "two" / "model.keras").exists()


@on_tensorflow
def test_what_keras_cannot_do_mirrored_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    devices = training.Devices("mirrored", 1, strategy)
    for message, optimizer, options in (
        ("jit_compile=True", {}, {"jit_compile": True}),
        ("steps_per_execution", {}, {"steps_per_execution": 2}),
        (
            "gradient_accumulation_steps",
            {"gradient_accumulation_steps": 2},
            {},
        ),
        (
            "ema_overwrite_frequency",
            {"use_ema": True, "ema_overwrite_frequency": 2},
            {},
        ),
    ):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(**optimizer), loss="mse", **options)
        with pytest.raises(ValueError, match=f"cannot train with {message}"):
            training.check_supported(model, devices, batch_size=4)
        training.check_supported(model, training.Devices(), batch_size=4)


@pytest.mark.parametrize("num_replicas, batch_size", [(1, 10), (4, 8)])
def test_batch_that_is_larger_than_the_images(
    tmp_path, monkeypatch, num_replicas, batch_size
):
    monkeypatch.setitem(fit.__globals__, "train", lambda task, *_: task)
    devices = training.Devices(num_replicas=num_replicas)
    with pytest.warns(UserWarning, match=f"from 32 to {batch_size}, "):
        task = fit(NETWORK, digits(10), RECIPE, tmp_path, devices)
    assert task.recipe.batch_size == batch_size
    assert task.steps_per_epoch == 1
    ((images, _),) = task.training_batches(0, 2, (0, 1))
    assert len(images) == batch_size


def test_batch_that_cannot_be_divided():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="multiple of the 3 devices.*=8"):
        training.check_supported(model, training.Devices("mirrored", 3), 8)


@on_tensorflow
def test_tpu_up_to_the_resolver(monkeypatch):
    names = []

    def resolver(tpu):
        names.append(tpu)
        raise ValueError("no such TPU\nand more")

    monkeypatch.setattr(
        tf.distribute.cluster_resolver, "TPUClusterResolver", resolver
    )
    with pytest.raises(ConnectionError, match="my-tpu.*no such TPU$"):
        training.make_devices("tpu", "my-tpu")
    with pytest.raises(ConnectionError, match="of this machine"):
        training.make_devices("tpu")
    assert names == ["my-tpu", ""]


@on_tensorflow
@pytest.mark.parametrize(
    "name, message",
    [
        ("horovod", "`name` must be one of .*Received: name='horovod'"),
        ("data_parallel", "needs Keras on jax .KERAS_BACKEND=jax."),
    ],
)
def test_wrong_strategy(name, message):
    with pytest.raises(ValueError, match=message):
        training.make_devices(name)


@pytest.mark.parametrize("precision", [large("bfloat16"), "float16"])
def test_mixed_precision(tmp_path, without_tensorboard, precision):
    model, history = fit(
        NETWORK,
        digits(),
        RECIPE,
        tmp_path,
        mixed_precision=precision,
        verbose=0,
    )
    assert history[-1]["loss"] < history[0]["loss"]
    assert model.get_layer("group1_block1_attention").compute_dtype == precision
    # The loss takes the logarithm of probabilities, so they are float32.
    assert model.get_layer("predictions").compute_dtype == "float32"
    # Under another policy than in training.
    assert keras.config.dtype_policy().name == "float32"
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_weights_equal(loaded, model)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["configuration"]["dtype_policy"] == f"mixed_{precision}"


@pytest.mark.large
def test_mixed_precision_is_as_accurate(tmp_path, without_tensorboard):
    """The whole training on digits, within one point; minutes."""
    network = {**NETWORK, "num_blocks": (1, 1), "num_heads": 4}
    network |= {"width_multiplier": 0.25, "kernel_size": 5}
    accuracy = {}
    for precision in (None, "bfloat16", "float16"):
        _, history = fit(
            network,
            load_data("digits"),
            DIGITS,
            tmp_path / str(precision),
            mixed_precision=precision,
            verbose=0,
        )
        accuracy[precision] = history[-1]["val_accuracy"]
    assert accuracy[None] > 0.97
    assert accuracy["bfloat16"] >= accuracy[None] - 0.01
    assert accuracy["float16"] >= accuracy[None] - 0.01


def test_loss_that_is_no_number_stops(
    tmp_path, linear_network, without_tensorboard
):
    recipe = dataclasses.replace(RECIPE, base_learning_rate=1e30)
    with pytest.raises(
        FloatingPointError,
        match="loss is nan in step [0-9]+ of epoch 1. No state was saved",
    ):
        fit(NETWORK, digits(), recipe, tmp_path, verbose=0)


def some_run(folder):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    run = Run(folder, {}, "val_accuracy")
    run.start()
    run.save(model, {"loss": 1.0, "val_accuracy": 0.5})
    return run, model


def test_metric_that_is_no_number_is_not_saved(tmp_path):
    """The last state stays, and the error names it."""
    run, model = some_run(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(
        FloatingPointError, match="val_loss is nan after epoch 2.*state-0001"
    ):
        run.save(model, {"loss": 1.0, "val_loss": float("nan")})
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    run, model = some_run(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def save_weights(path):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save_weights", save_weights)
    with pytest.raises(
        OSError, match="after epoch 2 cannot.*No space left.*state-0001"
    ):
        run.save(model, {"loss": 1.0, "val_accuracy": 0.9})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_that_the_system_refuses_to_write(tmp_path):
    """A real error: a limit on the size of files below the size of a state."""
    model = keras.Sequential([keras.Input((99,)), keras.layers.Dense(999)])
    model.compile("sgd", loss="mse")
    run = Run(tmp_path, {}, "val_accuracy")
    run.start()
    run.save(model, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(
            OSError,
            match="(?s)after epoch 2 cannot be written.*"
            "last good state, after epoch 1, is",
        ):
            run.save(model, {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"state.json", "state-0001.weights.h5", "history.csv"}
    run = Run(tmp_path, {}, "val_accuracy")
    run.start(resume=True)
    assert run.epochs_done == 1


def test_room_on_the_disk_is_asked_for_first(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(100, 100, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs .* MiB for its files, and 0 MiB"):
        fit(NETWORK, digits(), RECIPE, tmp_path, verbose=0)


def test_room_that_a_training_has_taken_is_not_asked_for_again(
    tmp_path, monkeypatch
):
    some_run(tmp_path)
    size = (tmp_path / "state-0001.weights.h5").stat().st_size
    usage = shutil._ntuple_diskusage(9 * size, 5 * size, 4 * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    Run(tmp_path, {}, "val_accuracy").start(resume=True, num_bytes=size)
    with pytest.raises(OSError, match="needs"):
        Run(tmp_path / "other", {}, "val_accuracy").start(num_bytes=size)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(OSError, match="cannot be written to.*file"):
            fit(NETWORK, digits(), RECIPE, folder, verbose=0)


def test_history_that_was_cut_off_is_mended(tmp_path):
    """A run killed after `state.json` leaves the previous table."""
    run, _ = some_run(tmp_path)
    table = tmp_path / "history.csv"
    whole = table.read_bytes()
    table.write_bytes(whole.splitlines(keepends=True)[0])
    Run(tmp_path, run.configuration, "val_accuracy").start(resume=True)
    assert table.read_bytes() == whole


def test_processes_that_read_another_folder(monkeypatch):
    multihost_utils = pytest.importorskip("jax.experimental.multihost_utils")
    devices = training.Devices("data_parallel", 2, shard=(0, 2))
    for other in (3, 0):
        monkeypatch.setattr(
            multihost_utils,
            "process_allgather",
            lambda value, other=other: np.array([value, other]),
        )
        if other == 3:
            devices.check_equal(3, "number of epochs done")
    with pytest.raises(ValueError, match=r"same number of epochs.*\[3, 0\]"):
        devices.check_equal(3, "number of epochs done")


def test_folder_of_another_training(tmp_path):
    some_run(tmp_path)
    with pytest.raises(FileExistsError, match="resume it .--resume."):
        Run(tmp_path, {}, "val_accuracy").start()
    with pytest.raises(ValueError, match="seed: not set before, 3 now"):
        Run(tmp_path, {"seed": 3}, "val_accuracy").start(resume=True)


def changed(folder, before, now):
    """Returns the message about a configuration that differs."""
    state = {"configuration": before, "history": []}
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError) as raised:
        Run(folder, now, "val_accuracy").start(resume=True)
    text = str(raised.value)
    return text.partition("with a different configuration: ")[2]


def test_values_that_differ_are_named(tmp_path):
    before = {
        "network": {"num_heads": 4, "spatial": ["conv", "attention"]},
        "classes": ["cat", "dog"],
        "images": [30, 10],
    }
    now = {
        "network": {"num_heads": 8, "spatial": ["conv", "conv"], "stem": "s"},
        "classes": ["cat", "dog", "owl"],
        "images": [30, 10],
    }
    assert changed(tmp_path, before, now).split("; ") == [
        "classes: ['cat', 'dog'] before, ['cat', 'dog', 'owl'] now",
        "network.num_heads: 4 before, 8 now",
        "network.spatial[1]: 'attention' before, 'conv' now",
        "network.stem: not set before, 's' now",
    ]
    many = changed(
        tmp_path,
        {"classes": [f"{n}" for n in range(1000)]},
        {"classes": [f"new {n}" for n in range(1000)]},
    )
    assert len(many) < 1000 and many.endswith("; and 988 more")


def interrupt_after(monkeypatch, epochs):
    """Presses Ctrl-C in the first step after `epochs` epochs."""

    def on_train_batch_end(self, batch, logs=None):
        if self.run.epochs_done == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        training.SaveRun, "on_train_batch_end", on_train_batch_end
    )


def test_more_epochs_and_an_interruption(
    tmp_path, linear_network, without_tensorboard, monkeypatch, capsys
):
    """One epoch, then three: at once, and interrupted after the second."""
    one = dataclasses.replace(RECIPE, epochs=1)
    fit(NETWORK, digits(), one, tmp_path / "whole", verbose=0)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    capsys.readouterr()
    resume = {"resume": True, "verbose": 2}
    model, history = fit(
        NETWORK, digits(), RECIPE, tmp_path / "whole", **resume
    )
    schedule = RECIPE.make_schedule(5)
    assert (
        "Resuming after epoch 1 of 3. "
        "The run was to end after epoch 1: from here on the "
        "learning rate follows the cosine of 3 epochs, now at "
        f"{float(schedule(5)):.3g}."
    ) in capsys.readouterr().out
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            fit(NETWORK, digits(), RECIPE, tmp_path / "stopped", **resume)
    folder = tmp_path / "stopped"
    assert capsys.readouterr().err.splitlines() == [
        "",
        "Interrupted: the state after epoch 2 is kept in "
        f"{folder / 'state-0002.weights.h5'}.",
        f"Resume with --resume {folder} (programs) or with resume=True "
        "(Python).",
    ]
    other, same = fit(NETWORK, digits(), RECIPE, folder, **resume)
    assert capsys.readouterr().out.startswith("Resuming after epoch 2 of 3.\n")
    assert same == history and [row["epoch"] for row in same] == [1, 2, 3]
    assert_weights_equal(other, model)
    with pytest.raises(
        ValueError, match="`epochs` must be at least the 3.*Received: epochs=1"
    ):
        fit(NETWORK, digits(), one, folder, resume=True, verbose=0)


def test_interruption_of_the_first_epoch(tmp_path):
    run = Run(tmp_path, {}, "val_accuracy")
    run.start()
    assert run.describe_interruption().splitlines() == [
        "Interrupted in the first epoch: no state was saved.",
        "Start again with the same command or call.",
    ]


def test_folder_without_a_training(tmp_path):
    with pytest.raises(ValueError, match="holds no training"):
        training.read_training(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"configura', "state.json' is damaged: Unterminated"),
        (b"\xff", "state.json' is damaged: 'utf-8'"),
        (b"[]", r"state.json' must hold an object.*\[\]"),
        (b'{"version": 1}', r"not the state of a training.*\['version'\]"),
    ],
)
def test_files_that_no_training_has_written(tmp_path, content, message):
    (tmp_path / "state.json").write_bytes(content)
    for call in (
        lambda: Run(tmp_path, {}, "val_accuracy").start(resume=True),
        lambda: training.read_training(tmp_path),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_corrupt_image_is_named(tmp_path, linear_network, without_tensorboard):
    folder = image_folder(tmp_path / "data", images=10)
    data = load_data(folder)
    bad = folder / "dog" / "4.png"
    bad.write_bytes(bad.read_bytes()[:50])
    recipe = dataclasses.replace(RECIPE, batch_size=4)
    with pytest.raises(
        ValueError, match=f"1 images .*skip-corrupt.: '{bad}': "
    ):
        fit(NETWORK, data, recipe, tmp_path / "run", verbose=0)


def test_wrong_precision(tmp_path):
    with pytest.raises(
        ValueError, match="`mixed_precision` must be `None` or .*='int8'"
    ):
        fit(NETWORK, digits(), RECIPE, tmp_path, mixed_precision="int8")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": "resnet50"}, "`network` must be a dict.*='resnet50' of"),
        ({"network": {"classes": 3}}, "not have the arg.*Received: .'classes'"),
        ({"data": "digits"}, "`data` must be an `ImageData`.*'digits' of type"),
        ({"recipe": "digits"}, "`recipe` must be a .*Recipe.*'digits' of type"),
        ({"devices": "mirrored"}, "`devices` must be .*make_devices"),
    ],
)
def test_wrong_kinds_of_arguments(changes, message, tmp_path):
    arguments = {"network": NETWORK, "data": digits(), "recipe": RECIPE}
    with pytest.raises(ValueError, match=message):
        fit(**{**arguments, **changes}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_and_recipes_of_detectors(tmp_path):
    data = digits()
    boxes = DetectionData(data.train, data.validation, data.class_names)
    with pytest.raises(ValueError, match="Received: a `DetectionData`, which"):
        fit(NETWORK, boxes, RECIPE, tmp_path / "run")
    with pytest.raises(ValueError, match="'shift' or .*='scale_jitter'"):
        fit(NETWORK, data, training.detection.COCO, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("function", [fit, training.detection.fit])
def test_misspelled_argument(function, tmp_path):
    with pytest.raises(TypeError, match=r"fit\(\).*'seeds'"):
        function(NETWORK, digits(), RECIPE, tmp_path, seeds=1)


@pytest.mark.parametrize(
    "mixed_precision, name",
    [(None, "mixed_bfloat16"), ("float16", "mixed_float16")],
)
def test_the_policy_of_the_user_stays(tmp_path, mixed_precision, name):
    """Also after an error; without an argument the network uses it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    policy = keras.config.dtype_policy()

    def on_start(model):
        assert keras.config.dtype_policy().name == name
        assert model.get_layer("group1_block1_attention").dtype_policy == (
            keras.config.dtype_policy()
        )
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fit(
            NETWORK,
            digits(),
            RECIPE,
            tmp_path,
            mixed_precision=mixed_precision,
            on_start=on_start,
        )
    assert keras.config.dtype_policy() is policy


@pytest.mark.parametrize(
    "before, now", [(None, "float32"), ("bfloat16", "mixed_bfloat16")]
)
def test_precision_as_older_versions_wrote_it(tmp_path, before, now):
    state = {"configuration": {"mixed_precision": before}, "history": []}
    (tmp_path / "state.json").write_text(json.dumps(state))
    Run(tmp_path, {"dtype_policy": now}, "val_accuracy").start(resume=True)
    with pytest.raises(ValueError, match=f"dtype_policy: '{now}' before"):
        Run(tmp_path, {"dtype_policy": "float64"}, "val_accuracy").start(
            resume=True
        )

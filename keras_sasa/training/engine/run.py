"""The files of a training: what it needs to go on, and what it found.

A run is a folder. Its `state.json` says which file holds the last and which
the best weights; it is replaced in one step after these are on the disk, so
that a training that is killed at any moment leaves a complete older state or a
complete newer one.
"""

import contextlib
import csv
import dataclasses
import errno
import json
import math
import os
import pathlib
import reprlib
import shlex
import shutil
import tempfile
from collections.abc import Callable

import keras

from keras_sasa._paths import local_path
from keras_sasa.training.engine.recipe import Recipe

STATE = "state.json"
ARGUMENTS = "arguments.json"
HISTORY = "history.csv"
# Room for the last, the best and the next state, and the two final models.
_STATES_ON_DISK = 5
# Of the values that differ, so many are named.
_NAMED_DIFFERENCES = 12


@dataclasses.dataclass
class Run:
    """The folder of one training.

    Args:
        folder: Path of the folder, made if there is none.
        configuration: Dict of JSON values, which must be equal to resume a
            training, but for the number of epochs of its recipe.
        monitor: Name of the metric, higher is better, that says which epoch is
            the best.
        is_writer: Boolean, whether this process writes; of several processes
            one does.
        wait: Function that returns when all processes have called it.
    """

    folder: pathlib.Path
    configuration: dict
    monitor: str = "val_accuracy"
    is_writer: bool = True
    wait: Callable[[], None] = lambda: None

    def __post_init__(self):
        self.folder = local_path(self.folder, "folder")
        self.configuration = json.loads(json.dumps(self.configuration))
        self.history = []
        # Of the recipe with which the training was begun, on resume.
        self.epochs_before = None

    @property
    def epochs_done(self):
        return len(self.history)

    @property
    def last(self):
        """Name of the file of the last state, `None` before the first."""
        return _file_after(len(self.history))

    @property
    def best(self):
        """That of the best, of equal ones the latest."""
        rows = enumerate(self.history, start=1)
        values = [(row.get(self.monitor, -math.inf), n) for n, row in rows]
        return _file_after(max(values, default=(0, 0))[1])

    def start(self, resume=False, num_bytes=0):
        """Prepares the folder, or reads where the training was.

        Args:
            resume: Boolean, whether to go on with what the folder holds; an
                empty folder is begun. With other epochs than before, the
                schedule is that of the new number from here on.
            num_bytes: Integer, expected size of one state, to find out early
                whether the disk has room.

        Raises:
            FileExistsError: If the folder holds a training and `resume` is
                false.
            ValueError: If its configuration differs.
            OSError: If it cannot be written to, or has no room.
        """
        if (self.folder / STATE).exists():
            if not resume:
                raise FileExistsError(
                    f"{str(self.folder)!r} holds a training already: go on "
                    "with it (--resume), or take another folder (--output)."
                )
            self._read()
        if not self.is_writer:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise type(error)(
                error.errno,
                f"The output folder cannot be written to: {error.strerror}",
                str(self.folder),
            ) from error
        if self.history:
            # A kill between the two files may have left it one row behind.
            self._write_history()
        # On resume a part of them is there.
        needed = _STATES_ON_DISK * num_bytes - sum(
            path.stat().st_size
            for pattern in ("state-*.weights.h5", "*.keras")
            for path in self.folder.glob(pattern)
        )
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"The training needs {needed / 2**20:.0f} MiB for its files, "
                f"and {free / 2**20:.0f} MiB are free",
                str(self.folder),
            )

    def _read(self):
        state = _read_state(self.folder)
        before, now = _filled_in(state["configuration"]), self.configuration
        changed = [
            difference
            for difference in _differences(before, now)
            if not difference.startswith("recipe.epochs: ")
        ]
        more = len(changed) - _NAMED_DIFFERENCES
        if more > 0:
            changed = [*changed[:_NAMED_DIFFERENCES], f"and {more} more"]
        if changed:
            raise ValueError(
                f"The training in {str(self.folder)!r} cannot be resumed with "
                "a different configuration: " + "; ".join(changed)
            )
        epochs = now.get("recipe", {}).get("epochs", math.inf)
        if epochs < len(state["history"]):
            raise ValueError(
                f"`epochs` must be at least the {len(state['history'])} that "
                f"the training in {str(self.folder)!r} has done. "
                f"Received: epochs={epochs}."
            )
        self.history = state["history"]
        self.epochs_before = before.get("recipe", {}).get("epochs")

    def load(self, model, which="last"):
        """Loads a state, `"last"` or `"best"`; the optimizer must be built."""
        name = getattr(self, which)
        if name is None:
            return
        model.load_weights(self.folder / name)

    def save(self, model, logs):
        """Saves the state after an epoch, in one step.

        Args:
            model: The model, its own weights in it, not their average.
            logs: Dict of the metrics of the epoch.

        Raises:
            FloatingPointError: If a metric is not a number.
            OSError: If the state cannot be written. The one before stays.
        """
        epoch = self.epochs_done + 1
        for name, value in logs.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name} is {value} after epoch {epoch}. {self.last_good}"
                )
        after = dataclasses.replace(self)
        after.history = [*self.history, {"epoch": epoch, **logs}]
        try:
            with self._new_file(after.last) as path:
                model.save_weights(path)
            if self.is_writer:
                after._write_state()
        except OSError as error:
            raise OSError(
                error.errno,
                f"The state after epoch {epoch} cannot be written: "
                f"{error.strerror or error}. {self.last_good}",
                str(self.folder),
            ) from error
        self.wait()
        self.history = after.history
        if self.is_writer:
            for path in self.folder.glob("state-*.weights.h5"):
                if path.name not in (self.last, self.best):
                    path.unlink()

    def _write_state(self):
        state = {
            "configuration": self.configuration,
            "epochs_done": self.epochs_done,
            "last": self.last,
            "best": self.best,
            "history": self.history,
        }
        with _replacing(self.folder / STATE) as path:
            path.write_text(json.dumps(state, indent=1), encoding="utf-8")
        self._write_history()

    def _write_history(self):
        # Keras' CSVLogger would repeat the epoch that was cut off.
        with (
            _replacing(self.folder / HISTORY) as path,
            open(path, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.history[0])
            writer.writeheader()
            writer.writerows(self.history)

    def save_model(self, model, name):
        """Saves a whole model as `name`, in one step."""
        with self._new_file(name) as path:
            model.save(path)
        self.wait()

    def _new_file(self, name):
        """Gives a path to write to, of which only the writer's is kept.

        All processes write, because all of them must take part when JAX reads
        a variable that is on several machines.
        """
        if self.is_writer:
            return _replacing(self.folder / name)
        return _thrown_away(name)

    @property
    def last_good(self):
        if self.last is None:
            return "No state was saved before."
        return (
            f"The last good state is that after epoch {self.epochs_done}: "
            f"{self.folder / self.last}"
        )

    def describe_interruption(self):
        """Returns two lines: which state is kept, and how to go on with it."""
        folder = shlex.quote(str(self.folder))
        if not (self.folder / STATE).exists():
            return (
                "Interrupted in the first epoch: there is no state to keep.\n"
                "Start again with the same command or call."
            )
        # Or the state that was just being written would not be counted.
        state = _read_state(self.folder)
        return (
            f"Interrupted: the state after epoch {state['epochs_done']} is "
            f"kept in {self.folder / state['last']}.\n"
            f"Resume with --resume {folder} (programs) or with resume=True "
            "(Python)."
        )


def _file_after(epoch):
    return f"state-{epoch:04d}.weights.h5" if epoch else None


def _read_state(folder):
    state = _read_json(pathlib.Path(folder) / STATE)
    if not {"configuration", "history"} <= state.keys():
        raise ValueError(
            f"{str(pathlib.Path(folder) / STATE)!r} is not the state of a "
            f"training. Received: an object with {sorted(state)}."
        )
    return state


def _read_json(path):
    """Returns the dict in a file that a training has written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} must hold an object, as a training writes it. "
            f"Received: {reprlib.repr(content)}."
        )
    return content


def read_training(folder):
    """Returns the `Recipe` and the class names of the training in a folder.

    Raises:
        ValueError: If there is no training.
    """
    try:
        configuration = _read_state(folder)["configuration"]
        return Recipe(**configuration["recipe"]), configuration["classes"]
    except OSError as error:
        raise ValueError(
            f"{str(folder)!r} holds no training: {error.strerror}: {STATE}"
        ) from error


def _filled_in(configuration):
    """Returns a configuration with what older versions did not write."""
    configuration = dict(configuration)
    if "mixed_precision" in configuration:
        name = configuration.pop("mixed_precision")
        configuration["dtype_policy"] = f"mixed_{name}" if name else "float32"
    if "recipe" in configuration:
        recipe = dataclasses.asdict(Recipe(**configuration["recipe"]))
        configuration["recipe"] = json.loads(json.dumps(recipe))
    return configuration


def _differences(before, now, name=""):
    """Yields `"name.of.the.value: 4 before, 8 now"` for all that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(
                before.get(key),
                now.get(key),
                f"{name}.{key}" if name else str(key),
            )
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
    ):
        for place, values in enumerate(zip(before, now, strict=True)):
            yield from _differences(*values, f"{name}[{place}]")
    elif before != now:
        yield f"{name}: {_short(before)} before, {_short(now)} now"


def _short(value):
    return "not set" if value is None else reprlib.repr(value)


def write_arguments(folder, arguments):
    """Keeps the arguments of a training script, for `read_arguments`.

    Args:
        folder: Path of the run.
        arguments: Dict of JSON values.
    """
    with _replacing(pathlib.Path(folder) / ARGUMENTS) as path:
        path.write_text(json.dumps(arguments, indent=1), encoding="utf-8")


def read_arguments(folder, known):
    """Returns what `write_arguments` has kept, or an empty dict.

    Args:
        folder: Path of the run.
        known: The names of the arguments of the script that reads it.

    Raises:
        ValueError: If another script has written it.
    """
    path = pathlib.Path(folder) / ARGUMENTS
    if not path.exists():
        return {}
    arguments = _read_json(path)
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise ValueError(
            f"{str(folder)!r} holds a training of another script, which has "
            f"the arguments {unknown} besides."
        )
    return arguments


@contextlib.contextmanager
def _replacing(path):
    """Gives a path to write to, and puts it in the place of `path`."""
    # Keras looks at the ending of the name.
    temporary = path.with_name("new-" + path.name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):
            # Or a power cut may take the new name back, or keep only the name
            # of the second of two files. Windows cannot open a folder.
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _thrown_away(name):
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder) / name


class SaveRun(keras.callbacks.Callback):
    """Saves the state after each epoch, and stops when the loss is no number.

    Args:
        run: A `Run`.
    """

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {float(loss)} in step {batch + 1} of epoch "
                f"{self.run.epochs_done + 1}. {self.run.last_good}"
            )

    def on_epoch_end(self, epoch, logs=None):
        self.run.save(
            self.model, {name: float(value) for name, value in logs.items()}
        )

"""The folder of a training run: its state, to resume it, and its history.

`state.json` names the files of the last and of the best weights. It is replaced
in one step when these are on the disk, so that a run that is killed at any
moment leaves a complete older or a complete newer state.
"""

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
from typing import Any

import keras

from keras_sasa._paths import local_path
from keras_sasa.training.engine.atomic_files import discard_file, replace_file
from keras_sasa.training.engine.configuration import (
    describe_differences,
    upgrade_configuration,
)

STATE = "state.json"
HISTORY = "history.csv"
# Room for the last, the best and the next state, and the two final models.
_STATES_ON_DISK = 5


@dataclasses.dataclass
class Run:
    """The folder of one training run.

    Args:
        folder: Path of the folder, which is created if necessary.
        configuration: Dict of JSON values, which must be equal to resume the
            run, except for the number of epochs of its recipe.
        monitor: Name of the metric, higher is better, that decides which epoch
            is the best.
        is_writer: Boolean, whether this process writes; exactly one of several
            processes does.
        barrier: Function that returns when all processes have called it.
    """

    folder: str | os.PathLike
    configuration: dict[str, Any]
    monitor: str
    is_writer: bool = True
    barrier: Callable[[], None] = lambda: None

    def __post_init__(self):
        self.folder = local_path(self.folder, "folder")
        self.configuration = json.loads(json.dumps(self.configuration))
        self.history = []
        # The epochs of the recipe before this run was resumed.
        self.epochs_before = None

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    @property
    def last(self) -> str | None:
        """File name of the last state, `None` before the first."""
        return _file_after(len(self.history))

    @property
    def best(self) -> str | None:
        """File name of the best state; of equal ones the latest."""
        rows = enumerate(self.history, start=1)
        values = [(row.get(self.monitor, -math.inf), n) for n, row in rows]
        return _file_after(max(values, default=(0, 0))[1])

    def start(self, resume: bool = False, num_bytes: int = 0) -> None:
        """Prepares the folder, or reads its state.

        Args:
            resume: Boolean, whether to resume the run in the folder; in an
                empty folder a new one begins. If the number of epochs changes,
                the schedule follows the new number from here on.
            num_bytes: Integer, expected size of one state, to find out early
                whether the disk has room.

        Raises:
            FileExistsError: If the folder holds a run and `resume` is false.
            ValueError: If its configuration differs.
            OSError: If it cannot be written to, or has no room.
        """
        if (self.folder / STATE).exists():
            if not resume:
                raise FileExistsError(
                    f"{str(self.folder)!r} holds a training already: resume it "
                    "(--resume), or choose another folder (--output)."
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
            # A run killed between both files leaves it one row behind.
            self._write_history()
        # A resumed run has written some of them.
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
        before = upgrade_configuration(state["configuration"])
        now = self.configuration
        if differences := describe_differences(before, now):
            raise ValueError(
                f"The training in {str(self.folder)!r} cannot be resumed with "
                f"a different configuration: {differences}"
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

    def load(self, model: keras.Model, which: str = "last") -> None:
        """Loads a state, `"last"` or `"best"`; the optimizer must be built."""
        name = getattr(self, which)
        if name is None:
            return
        model.load_weights(self.folder / name)

    def save(self, model: keras.Model, logs: dict[str, float]) -> None:
        """Saves the state after an epoch, in one step.

        Args:
            model: The model, with its own weights rather than their average.
            logs: Dict of the metrics of the epoch.

        Raises:
            FloatingPointError: If a metric is NaN or infinite.
            OSError: If the state cannot be written. The last one stays.
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
        self.barrier()
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
        with replace_file(self.folder / STATE) as path:
            path.write_text(json.dumps(state, indent=1), encoding="utf-8")
        self._write_history()

    def _write_history(self):
        # Keras' CSVLogger would repeat an interrupted epoch.
        with (
            replace_file(self.folder / HISTORY) as path,
            open(path, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.history[0])
            writer.writeheader()
            writer.writerows(self.history)

    def save_model(self, model: keras.Model, name: str) -> None:
        """Saves a whole model as `name`, in one step."""
        with self._new_file(name) as path:
            model.save(path)
        self.barrier()

    def _new_file(self, name):
        """Yields a path to write to; only the file of the writer is kept.

        All processes write, because JAX needs all of them to read a variable
        that is distributed over several machines.
        """
        if self.is_writer:
            return replace_file(self.folder / name)
        return discard_file(name)

    @property
    def last_good(self) -> str:
        """A sentence that names the last saved state."""
        if self.last is None:
            return "No state was saved before."
        return (
            f"The last good state, after epoch {self.epochs_done}, is in "
            f"{self.folder / self.last}"
        )

    def describe_interruption(self) -> str:
        """Returns two lines: which state is kept, and how to resume it."""
        folder = shlex.quote(str(self.folder))
        if not (self.folder / STATE).exists():
            return (
                "Interrupted in the first epoch: no state was saved.\n"
                "Start again with the same command or call."
            )
        # The interruption may have come after the state was written, and
        # before `self.history` was updated.
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
    state = read_json(pathlib.Path(folder) / STATE)
    if not {"configuration", "history"} <= state.keys():
        raise ValueError(
            f"{str(pathlib.Path(folder) / STATE)!r} is not the state of a "
            f"training. Received: an object with {sorted(state)}."
        )
    return state


def read_json(path):
    """Returns the dict in a file that a run has written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} must hold an object, as training runs write it. "
            f"Received: {reprlib.repr(content)}."
        )
    return content


def read_configuration(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns the configuration of the run in a folder.

    Raises:
        ValueError: If the folder holds no run.
    """
    try:
        return _read_state(folder)["configuration"]
    except OSError as error:
        raise ValueError(
            f"{str(folder)!r} holds no training: {error.strerror}: {STATE}"
        ) from error

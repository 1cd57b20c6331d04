"""What every benchmark shares: timing, memory, the machine, CSV rows."""

import argparse
import csv
import ctypes
import datetime
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def make_parser(description, results, repeats):
    """Makes a parser of the options that all benchmarks have.

    Args:
        description: Text for `--help`, the docstring of the benchmark.
        results: Name of the CSV file that is written by default.
        repeats: Integer, default of `--repeats`.

    Returns:
        An `argparse.ArgumentParser`.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument(
        "--csv",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "results" / results,
    )
    return parser


def interleaved_samples(functions, repeats):
    """Seconds of each call of each function, called in turns.

    Whatever slows the machine down for a while slows all of them.

    Args:
        functions: Dict from name to a function without arguments that returns
            when its work is done.
        repeats: Number of rounds after two that are not measured.

    Returns:
        Dict from name to a list of `repeats` numbers.
    """
    samples = {name: [] for name in functions}
    for round_ in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds = time.perf_counter() - start
            if round_ >= 2:
                samples[name].append(seconds)
    return samples


def interleaved_medians(functions, repeats):
    """Median seconds of each function, see `interleaved_samples`."""
    samples = interleaved_samples(functions, repeats)
    return {name: statistics.median(times) for name, times in samples.items()}


def resident_mib(field):
    """`VmRSS` (now) or `VmHWM` (peak) of this process in MiB (Linux)."""
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no field {field}.")


def peak_mib(function):
    """MiB that one call of `function` adds to the process at its peak."""
    # The C library keeps what earlier calls freed, which would hide this one.
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as reset:
        reset.write("5")
    before = resident_mib("VmRSS")
    function()
    return resident_mib("VmHWM") - before


def in_new_process(script, *arguments):
    """Last line that `script` prints, run with `arguments` on its own."""
    process = subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()[-1]


def commit():
    """The commit that is checked out, "" outside a clone.

    " with changes" follows if files differ from it. Rows do not count: other
    benchmarks may have written theirs.
    """
    folder = pathlib.Path(__file__).resolve().parents[1]

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True
        )

    found = git("rev-parse", "--short=10", "HEAD")
    if found.returncode:
        return ""
    changes = git(
        *("status", "--porcelain", "--untracked-files=no"),
        *("--", ".", ":!benchmarks/results"),
    )
    return found.stdout.strip() + (" with changes" if changes.stdout else "")


def machine(folders=()):
    """Processor, versions, command, date and commit, for the rows of a table.

    Args:
        folders: Paths in the command that are not the same elsewhere.
    """
    import keras
    import tensorflow as tf

    import keras_sasa

    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            facts = dict(
                [part.strip() for part in line.split(":", 1)]
                for line in info.read().split("\n\n")[0].splitlines()
                if ":" in line
            )
        # Virtual machines hide the name; family and model tell it apart.
        processor = (
            f"{facts.get('model name', processor)} family "
            f"{facts.get('cpu family', '?')} model {facts.get('model', '?')}"
        )
    command = shlex.join(
        ["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]
    )
    for folder in folders:
        command = command.replace(str(folder), "DIR")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "keras_sasa": keras_sasa.__version__,
    }


def read_rows(path):
    """Returns the rows of a CSV file as dicts of strings."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    """Writes dicts with equal keys as a CSV file.

    Rows that are there from another machine, or by another command, stay.
    Columns that only these or only the new rows have are empty in the others.
    """
    source = ("processor", "command")
    kept = [
        row
        for row in (read_rows(path) if path.exists() else [])
        if any(row[name] != rows[0][name] for name in source)
    ]
    columns = dict.fromkeys([*rows[0], *(kept[0] if kept else ())])
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def append_row(path, row):
    """Writes a dict at the end of a CSV file, which is made if need be."""
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)

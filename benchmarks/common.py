"""What every benchmark shares: timing, memory, the machine, CSV rows."""

import csv
import os
import platform
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


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


def machine():
    """Processor, number of cores and versions, for the rows of a table."""
    import keras
    import tensorflow as tf

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
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "command": " ".join(
            ["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]
        ),
    }


def write_rows(path, rows):
    """Writes dicts with equal keys as a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

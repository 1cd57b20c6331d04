"""Settings of all tests: which run, and a clean Keras for each."""

import gc
import itertools
import os
import weakref

import pytest

from tests.support.process import FASTER_COMPILATION

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
XLA_FLAGS = FASTER_COMPILATION
if os.environ.get("KERAS_BACKEND") == "jax":
    # Two devices for the tests on several.
    XLA_FLAGS += " --xla_force_host_platform_device_count=2"
os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)

# Run by hand, with packages of their own.
collect_ignore = ["reference"]


def pytest_addoption(parser):
    parser.addoption(
        "--run-large",
        action="store_true",
        help="run the tests marked large, which take minutes",
    )
    parser.addoption(
        "--run-network",
        action="store_true",
        help="run the tests marked network, which download files",
    )


def pytest_configure(config):
    if not config.getoption("--run-large"):
        # Small operations are faster without oneDNN. The programs that
        # tests/support/process.py runs have it.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    distributes = config.getoption("dist", "no") != "no"
    if distributes and not hasattr(config, "workerinput"):
        # The process that only hands out tests starts without TensorFlow.
        return
    import keras

    if keras.backend.backend() == "jax":
        import jax

        # Without it float64 is silently float32.
        jax.config.update("jax_enable_x64", True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Workers that are done take tests of the others."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(config, items):
    # A worker that begins with the longest is not waited for in the end.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    names = []
    if not config.getoption("--run-network"):
        names.append("network")
    if not config.getoption("--run-large"):
        names.append("large")
        if os.environ.get("KERAS_BACKEND") == "jax":
            names.append("large_on_jax")

    def left_out(item):
        return any(map(item.get_closest_marker, names))

    config.hook.pytest_deselected(items=list(filter(left_out, items)))
    items[:] = itertools.filterfalse(left_out, items)


def pytest_collection_finish(session):
    """Spares the garbage collector the millions of objects of the imports.

    Going through them takes half a second each time, and it waits until there
    are a quarter as many new ones: gigabytes of graphs that nobody uses. It
    starts after 700 new objects, of which a layer has thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)


@pytest.fixture(scope="session")
def cached_kernels():
    """Keeps the kernels of TensorFlow's operations from one test to the next.

    Clearing a session or setting a seed drops them all, and every kernel takes
    a millisecond to make. Nothing here draws from kernels that hold a state.
    """
    import keras

    with pytest.MonkeyPatch.context() as patch:
        if keras.backend.backend() == "tensorflow":
            from tensorflow.python.eager import context

            patch.setattr(
                context.pywrap_tfe,
                "TFE_ContextClearCaches",
                lambda handle: None,
            )
        yield


@pytest.fixture(scope="session")
def living_iterators():
    """A set of the iterators of `tf.data` that still exist.

    An iterator has a thread that wakes up after ever longer times, and its end
    may wait for that: half a minute, where it lay in the garbage for as long.
    """
    import keras

    iterators = weakref.WeakSet()
    with pytest.MonkeyPatch.context() as patch:
        if keras.backend.backend() == "tensorflow":
            from tensorflow.python.data.ops.iterator_ops import OwnedIterator

            create = OwnedIterator._create_iterator

            def spy(self, *args, **kwargs):
                iterators.add(self)
                return create(self, *args, **kwargs)

            patch.setattr(OwnedIterator, "_create_iterator", spy)
        yield iterators


@pytest.fixture(autouse=True)
def clean_keras(cached_kernels, living_iterators):
    """Leaves no name, seed or setting of one test to the next."""
    import keras

    before = set(map(id, living_iterators))
    # Without collecting garbage, which takes a tenth of a second.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    keras.backend.clear_session(free_memory=False)
    if not before.issuperset(map(id, living_iterators)):
        gc.collect()


@pytest.fixture(scope="session")
def native_available():
    """Skips where the kernel does not run, with the reason."""
    from keras_sasa.ops import local_attention

    reason = local_attention.available()["native"]
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def native_calls(native_available, monkeypatch):
    """A list that every call of the kernel makes one longer."""
    from keras_sasa.kernels import custom_call

    calls = []

    def spy_on(original):
        def spy(*args, **kwargs):
            calls.append(kwargs)
            return original(*args, **kwargs)

        return spy

    for name in ("with_gradient", "with_recomputed_gradient"):
        monkeypatch.setattr(
            custom_call, name, spy_on(getattr(custom_call, name))
        )
    return calls

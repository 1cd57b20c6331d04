"""Whether a layer's config holds every argument of its constructor."""

import inspect
import json


def assert_config_complete(layer_class, at_default=(), **arguments):
    """A round trip cannot see an argument that the config forgets; this can.

    Args:
        layer_class: The class.
        at_default: Names of those that others force to their default; a test
            of their own must change them.
        **arguments: All arguments of its constructor, no other at its default.
    """
    parameters = inspect.signature(layer_class.__init__).parameters
    assert set(arguments) == set(parameters) - {"self", "kwargs"}
    for name, value in arguments.items():
        if name not in at_default:
            assert value != parameters[name].default, name
    config = json.loads(json.dumps(layer_class(**arguments).get_config()))
    for name, value in arguments.items():
        kept = config[name]
        if isinstance(kept, dict) and "class_name" in kept:
            assert kept["class_name"] == type(value).__name__, name
            assert kept["config"] == value.get_config(), name
        else:
            if isinstance(kept, list) and not isinstance(value, tuple):
                value = (value,) * len(kept)
            kept = tuple(kept) if isinstance(kept, list) else kept
            assert kept == value, name
    again = layer_class.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config

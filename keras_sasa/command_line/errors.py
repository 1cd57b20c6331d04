"""Errors of scripts, for users rather than for programmers."""

import sys
from collections.abc import Callable


def run(main: Callable[[], object]) -> None:
    """Calls `main()`; errors that users can fix end in a single line.

    Args:
        main: Function without arguments.
    """
    try:
        main()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        # The exit status of interrupted programs.
        sys.exit(130)

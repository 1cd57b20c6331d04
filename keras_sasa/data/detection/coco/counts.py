"""Counts in notes and errors."""


def count_of(found, all_of_them):
    """Returns a text such as `"3 of 20"`."""
    return f"{len(found)} of {len(all_of_them)}"

"""Tables of plain text."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], text_columns: int) -> list[str]:
    """Pads the cells of a table so that its columns line up.

    Args:
        rows: Rows with the same number of cells.
        text_columns: Integer, number of leading columns that are flush left.
            The others, usually numbers, are flush right.

    Returns:
        List of one line for each row.

    Example:

    >>> from keras_sasa._text_tables import align
    >>> print("\\n".join(align([("layer", "FLOPs"), ("conv1", "9,216")], 1)))
    layer  FLOPs
    conv1  9,216
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(
                zip(row, widths, strict=True)
            )
        ).rstrip()
        for row in rows
    ]

"""Recognizes boxes of corners where COCO has left, top, width and height."""

from keras_sasa.data.detection.coco.fields import short_repr

# Boxes of careless annotators reach this many pixels beyond their image.
_BEYOND = 1.0
# No annotator is as careless as this, in sides of the image.
_FAR_BEYOND = 0.25


class CornerEvidence:
    """Tells left, top, right, bottom from left, top, width, height.

    Boxes whose right and bottom are read as width and height reach beyond many
    images, and most tools write the area of the box as the `area` of its
    object. A single box can look like corners by chance, so nearly all evidence
    comes from the whole file.
    """

    def __init__(self):
        self.number = 0
        self.suspects = []
        self.has_far = False
        self.only_corners = True

    def add(self, index, box, area, image):
        """Adds a box `[x, y, third, fourth]` of either format.

        Raises:
            ValueError: If this box alone is evidence enough.
        """
        x, y, third, fourth = box
        width, height = image["width"], image["height"]
        if not third * fourth:
            return
        self.number += 1
        if not (
            0 <= x < third <= width + _BEYOND
            and 0 <= y < fourth <= height + _BEYOND
        ):
            self.only_corners = False
            return
        if _is_close(area, third * fourth):
            return
        beyond = max(x + third - width, y + fourth - height)
        if _is_close(area, (third - x) * (fourth - y)):
            if beyond > _BEYOND:
                raise ValueError(_corners_message(box))
        elif beyond <= _BEYOND:
            return
        self.suspects.append((index, box))
        self.has_far |= (
            x + third > (1 + _FAR_BEYOND) * width
            or y + fourth > (1 + _FAR_BEYOND) * height
        )

    def check(self):
        """Raises an error if the boxes of the whole file are corners."""
        if self.only_corners and (
            self.has_far or 2 * len(self.suspects) > self.number
        ):
            index, box = self.suspects[0]
            raise ValueError(
                f"annotations[{index}] and others: {_corners_message(box)}"
            )


def _corners_message(box):
    return (
        "`bbox` must be left, top, width and height in pixels. It seems to be "
        f"left, top, right and bottom. Received: bbox={short_repr(box)}."
    )


def _is_close(area, other):
    # Areas are often rounded to pixels.
    return area is not None and abs(area - other) <= max(0.5, 1e-3 * other)

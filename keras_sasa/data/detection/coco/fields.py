"""Fields of the entries of a JSON file, checked one by one.

Errors name the field and the value; `locate_errors` adds the place of the
entry in the file.
"""

import contextlib
import reprlib

# Ids are stored as int64.
ID_LIMIT = 2**63
# More than the side of any image; areas stay finite in float32.
PIXEL_LIMIT = 1e9

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
# For messages: a value as Python writes it, abbreviated.
short_repr = _repr.repr


def list_entries(content, name):
    """Returns pairs of index and dict for all entries of the list `name`."""
    entries = content.get(name)
    if not isinstance(entries, list):
        raise ValueError(
            f"`{name}` must be a list of objects. Received: "
            f"{short_repr(entries) if name in content else 'no such field'}."
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(
                f"{name}[{index}] must be an object. "
                f"Received: {short_repr(entry)}."
            )
    return enumerate(entries)


@contextlib.contextmanager
def locate_errors(name, index, entry, images=None):
    """Prefixes errors about an entry with its place in the file."""
    try:
        yield
    except ValueError as error:
        shown = [
            f"{field}={short_repr(entry[field])}"
            for field in ("id", "image_id", "file_name", "name")
            if field in entry
        ]
        image_id = entry.get("image_id")
        if images and type(image_id) is int and image_id in images:
            shown.append(f"of {images[image_id]['file_name']!r}")
        raise ValueError(
            f"{name}[{index}] ({', '.join(shown)}): {error}"
        ) from error


def read_field(entry, name):
    if name not in entry:
        raise ValueError(f"the field `{name}` is missing.")
    return entry[name]


def read_integer(entry, name, low, limit):
    value = read_field(entry, name)
    # In Python True is an integer, and 1.0 equals 1.
    if type(value) is not int or not low <= value < limit:
        raise ValueError(
            f"`{name}` must be an integer from {low} to {limit - 1:.4g}. "
            f"Received: {name}={short_repr(value)}."
        )
    return value


def read_unique_id(entry, list_name, index, indices):
    """Returns the id of an entry, and records it in `indices`."""
    value = read_integer(entry, "id", 0, ID_LIMIT)
    other = indices.setdefault(value, index)
    if other != index:
        raise ValueError(
            f"`id` must be unique. Received: id={value}, also in "
            f"{list_name}[{other}]."
        )
    return value


def read_text(entry, name):
    value = read_field(entry, name)
    if (
        not isinstance(value, str)
        or not value.strip()
        or "\0" in value
        or not _is_encodable(value)
    ):
        raise ValueError(
            f"`{name}` must be a text that is not empty. "
            f"Received: {name}={short_repr(value)}."
        )
    return value


def _is_encodable(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a pair of escapes.
        return False
    return True


def read_flag(entry, name):
    value = entry.get(name, 0)
    if type(value) not in (int, bool) or value not in (0, 1):
        raise ValueError(
            f"`{name}` must be 0 or 1. Received: {name}={short_repr(value)}."
        )
    return bool(value)


def read_area(entry):
    """Returns the area of the object, or `None` where it is not given."""
    if "area" not in entry:
        return None
    area = entry["area"]
    if type(area) not in (int, float) or not 0 <= area < PIXEL_LIMIT**2:
        raise ValueError(
            "`area` must be a finite number that is not negative. "
            f"Received: area={short_repr(area)}."
        )
    return area


def read_box(entry, image):
    """Returns left, top, width and height of the box of an annotation."""
    box = read_field(entry, "bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(map(_is_number, box))
        or min(box[2:]) < 0
    ):
        raise ValueError(
            "`bbox` must be four finite numbers left, top, width and height, "
            "the last two not negative. "
            f"Received: bbox={short_repr(box)}."
        )
    x, y, width, height = box
    inside = image["width"], image["height"]
    if width and height and 0 <= min(box) and max(box) <= 1 < max(inside):
        raise ValueError(
            "`bbox` must be in pixels. It seems to be relative to the image of "
            f"{inside[0]} x {inside[1]} pixels. Received: bbox={box}."
        )
    if x > inside[0] or y > inside[1] or x + width < 0 or y + height < 0:
        raise ValueError(
            f"`bbox` must lie in the image {image['file_name']!r} of "
            f"{inside[0]} x {inside[1]} pixels, at least in part. "
            f"Received: bbox={box}."
        )
    return x, y, width, height


def _is_number(value):
    # Python reads NaN and infinity, though JSON has neither.
    return type(value) in (int, float) and abs(value) < PIXEL_LIMIT

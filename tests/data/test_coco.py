"""COCO's JSON: every entry is read, counted in a note, or named in an error."""

import copy
import json
import random

import numpy as np
import pytest
from PIL import Image

from keras_sasa.data.detection.coco import file
from keras_sasa.data.image_headers import Header, read_headers

SIZES = {"a.jpg": (80, 60), "b.jpg": (64, 64), "c.jpg": (50, 90)}
LISTS = ("categories", "images", "annotations")
ANYTHING = (
    *(None, True, False, "", " ", "1", "a.jpg", "dog", "../a.jpg", "/a.jpg"),
    *("\ud800", "a\0b", "no.jpg", "x" * 5000, [], {}, [1], [1, 2, 3, 4]),
    *([0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1], [70, 2, 30, 9], [1, 2, 0, 9]),
    *([60, 20, 70, 50], {"id": 1}, -1, 0, 1, 2, 3, 40, 64, 2**63, 10**400),
    *(1.0, 0.5, -0.5, 1e300, float("nan"), float("inf"), float("-inf")),
)


def make_content():
    return {
        "info": {"year": 2026},
        "categories": [
            {"id": 7, "name": "dog"},
            {"id": 2, "name": "cat", "supercategory": "animal"},
            {"id": 30, "name": "bird"},
        ],
        "images": [
            {
                "id": 5 * i,
                "file_name": name,
                "width": size[0],
                "height": size[1],
            }
            for i, (name, size) in enumerate(SIZES.items())
        ],
        "annotations": [
            {
                "id": 10 + i,
                "image_id": image,
                "category_id": category,
                "bbox": [x, y, width, height],
                "area": 0.7 * width * height,
                "iscrowd": int(i == 5),
                "segmentation": [[1, 2, 3, None]],
            }
            for i, (image, category, x, y, width, height) in enumerate(
                [
                    (0, 7, 10, 5.5, 20, 20.25),
                    (0, 30, 60, 40, 20, 20),
                    (5, 2, 0, 0, 64, 64),
                    (5, 7, 30, 10, 8, 4),
                    (10, 30, 3.5, 4.5, 5.25, 6),
                    (10, 2, 20, 30, 10, 12),
                ]
            )
        ],
    }


def header_of(name):
    if name not in SIZES:
        return "there is no such file"
    return Header(*SIZES[name])


def parse(content):
    return file.parse(
        content, lambda names: [header_of(name) for name in names]
    )


def mutate(content, draw):
    """Makes one of the changes that occur in real files."""
    name = draw.choice((*LISTS, "annotations", "annotations"))
    entries = content.get(name)
    if not isinstance(entries, list) or not entries:
        return
    index = draw.randrange(len(entries))
    entry = entries[index]
    kind = draw.choice(
        "field field remove copy lose entry list box box box".split()
    )
    if kind == "copy":
        again = copy.deepcopy(entry)
        if isinstance(again, dict) and draw.random() < 0.7:
            again["id"] = 90 + draw.randrange(9)
        entries.insert(draw.randrange(len(entries) + 1), again)
    elif kind == "lose":
        del entries[index]
    elif kind == "entry":
        entries[index] = draw.choice(ANYTHING)
    elif kind == "list" and draw.random() < 0.2:
        content[name] = draw.choice(ANYTHING)
    elif isinstance(entry, dict) and entry:
        field = draw.choice(sorted(entry))
        box = entry.get("bbox")
        if kind == "remove":
            del entry[field]
        elif kind == "box" and isinstance(box, list) and box:
            place = draw.randrange(len(box))
            box[place] = draw.choice(
                [draw.choice(ANYTHING), -3, 0, 12, 75, 2.5]
            )
        else:
            entry[field] = copy.deepcopy(draw.choice(ANYTHING))


def faults_of(content):
    """Finds every error, one plain condition after the other."""
    faults = {name for name in LISTS if not isinstance(content.get(name), list)}
    lists = {name: content[name] for name in LISTS if name not in faults}
    faults |= {name for name in LISTS[:2] if content.get(name) == []}

    def is_integer(value, low=0):
        return type(value) is int and low <= value < 2**63

    def is_number(value):
        return type(value) in (int, float) and -1e9 < value < 1e9

    def is_text(value):
        return isinstance(value, str) and value.strip() and value.isprintable()

    for name, entries in lists.items():
        seen = []
        for index, entry in enumerate(entries):
            where = f"{name}[{index}]"
            if not isinstance(entry, dict) or not is_integer(entry.get("id")):
                faults.add(where)
                continue
            if entry["id"] in seen:
                faults.add(where)
            seen.append(entry["id"])
            if name != "annotations":
                text = entry.get(
                    "name" if name == "categories" else "file_name"
                )
                if not is_text(text) or ("text", text) in seen:
                    faults.add(where)
                seen.append(("text", text))
            if name == "images":
                size = entry.get("width"), entry.get("height")
                if not all(is_integer(side, 1) for side in size):
                    faults.add(where)
                if size != SIZES.get(str(entry.get("file_name"))):
                    faults.add(where)
    if any(not fault.startswith("annotations[") for fault in faults):
        # Nothing to compare annotations with.
        return faults
    sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
    category_ids = [category["id"] for category in content["categories"]]
    for index, entry in enumerate(content["annotations"]):
        where = f"annotations[{index}]"
        if not isinstance(entry, dict):
            continue
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        box, area = entry.get("bbox"), entry.get("area", 0)
        crowd = entry.get("iscrowd", 0)
        if not (
            is_integer(image_id)
            and image_id in sizes
            and is_integer(category_id)
            and category_id in category_ids
            and isinstance(box, list)
            and len(box) == 4
            and all(map(is_number, box))
            and box[2] >= 0
            and box[3] >= 0
            and type(area) in (int, float)
            and 0 <= area < 1e18
            and (crowd is True or crowd is False or type(crowd) is int)
            and crowd in (0, 1)
        ):
            faults.add(where)
            continue
        x, y, width, height = box
        image_width, image_height = sizes[image_id]
        if (
            not -width <= x <= image_width
            or not -height <= y <= image_height
            or (width > 0 and height > 0 and 0 <= min(box) and max(box) <= 1)
        ):
            faults.add(where)
    return faults


def expected_split(content):
    """Reads correct content; counts entries that are changed."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    order = sorted(names)
    counts = {"reach beyond": 0, "no area": 0, "smaller than the `area`": 0}
    found, used = [], set()
    for image in content["images"]:
        sides = np.array([image["width"], image["height"]] * 2)
        rows = []
        for a in content["annotations"]:
            if a["image_id"] != image["id"]:
                continue
            x, y, width, height = a["bbox"]
            whole = np.array([x, y, x + width, y + height], float)
            box = np.minimum(np.maximum(whole, 0), sides)
            own_area = float(np.prod(box[2:] - box[:2]))
            if not own_area:
                counts["no area"] += 1
                continue
            counts["reach beyond"] += abs(whole - box).max() > 0.05
            area = a.get("area", own_area)
            if area > (width + 1) * (height + 1):
                counts["smaller than the `area`"] += 1
                area = own_area
            crowd = bool(a.get("iscrowd", 0))
            if not crowd:
                used.add(a["category_id"])
            rows.append((box, order.index(a["category_id"]), crowd, area))
        found.append((image["id"], image["file_name"], rows))
    counts["categories have no box"] = len(order) - len(used)
    return [names[category_id] for category_id in order], found, counts


def assert_equal(split, content):
    names, images, counts = expected_split(content)
    assert split.class_names == names
    assert split.image_ids == [image_id for image_id, *_ in images]
    assert split.file_names == [name for _, name, _ in images]
    for found, (*_, rows) in zip(split.annotations, images, strict=True):
        assert found.boxes.shape == (len(rows), 4)
        for index, (box, label, crowd, area) in enumerate(rows):
            np.testing.assert_allclose(found.boxes[index], box, rtol=1e-6)
            assert found.labels[index] == label
            assert found.is_crowd[index] == crowd
            np.testing.assert_allclose(found.areas[index], area, rtol=1e-6)
    notes = [(text, n) for text, n in counts.items() if n]
    assert len(split.notes) == len(notes)
    for note, (text, number) in zip(split.notes, notes, strict=True):
        assert note.startswith(f"{number} of ") and text in note


def test_content_as_it_should_be():
    split = parse(make_content())
    assert not split.notes
    assert split.class_names == ["cat", "dog", "bird"]
    assert_equal(split, make_content())
    assert split.annotations[0].boxes.tolist() == [
        [10, 5.5, 30, 25.75],
        [60, 40, 80, 60],
    ]
    assert split.annotations[0].labels.tolist() == [1, 2]
    assert split.annotations[2].is_crowd.tolist() == [False, True]


def test_mutated_content_is_read_or_named():
    """2,000 files, each read exactly, or an error names the entry."""
    read = refused = 0
    for seed in range(2000):
        draw = random.Random(seed)
        content = make_content()
        for _ in range(draw.choice([1, 1, 2, 3])):
            mutate(content, draw)
        content = json.loads(json.dumps(content))
        faults = faults_of(content)
        try:
            split = parse(content)
        except ValueError as error:
            assert any(fault in str(error) for fault in faults), (seed, error)
            refused += 1
        else:
            assert not faults, (seed, faults)
            assert_equal(split, content)
            read += 1
    assert read > 300 and refused > 1000


@pytest.mark.parametrize("content", [None, [], "x", 3, float("nan")])
def test_content_that_is_no_object(content):
    with pytest.raises(ValueError, match="must hold an object with `images`"):
        parse(content)


def change_all(**changes):
    content = make_content()
    for annotation in content["annotations"]:
        for name, change in changes.items():
            annotation[name] = change(annotation)
    return content


def corners(annotation):
    x, y, width, height = annotation["bbox"]
    return [x, y, x + width, y + height]


def area_of_box(annotation):
    return round(annotation["bbox"][2] * annotation["bbox"][3])


def test_boxes_of_other_formats():
    """The area or the extent gives corners away; others are counted."""
    content = change_all(area=area_of_box, bbox=corners)
    with pytest.raises(ValueError, match=r"annotations\[1\].*left, top, right"):
        parse(content)
    # None reaches beyond its image.
    del content["annotations"][1:4]
    with pytest.raises(ValueError, match=r"annotations\[0\].*left, top, right"):
        parse(content)
    # Without areas, boxes at the lower right give it away.
    content = change_all(bbox=corners)
    for annotation in content["annotations"]:
        del annotation["area"]
    with pytest.raises(ValueError, match=r"annotations\[1\].*left, top, right"):
        parse(content)
    # Large, careless boxes, which could be corners as well.
    content = change_all(bbox=lambda _: [10, 5, 45, 53])
    assert parse(content).notes[0].startswith("2 of 6 boxes reach beyond")
    content["annotations"] = content["annotations"][4:]
    with pytest.raises(ValueError, match=r"annotations\[0\].*left, top, right"):
        parse(content)
    for annotation in content["annotations"]:
        annotation["area"] = area_of_box(annotation)
    assert parse(content).notes[0].startswith("2 of 2 boxes reach beyond")

    def relative(annotation):
        return [side / 100 for side in annotation["bbox"]]

    with pytest.raises(ValueError, match="pixels. It seems to be relative to"):
        parse(change_all(bbox=relative))


@pytest.mark.parametrize(
    "header, message",
    [
        (Header(60, 80), "80 x 60, but the file has 60 x 80: .*swapped"),
        (Header(160, 120), "80 x 60, but the file has 160 x 120"),
        (
            Header(60, 80, 6),
            "60 x 80 after its EXIF orientation 6 is applied.*upright",
        ),
        ("it is empty", r"1 of 3 image files are missing.*\('a.jpg'\): it is"),
    ],
)
def test_sizes_that_disagree(header, message):
    def headers(names):
        return [header, *map(header_of, names[1:])]

    with pytest.raises(ValueError, match=message) as caught:
        file.parse(make_content(), headers)
    assert "images[0] ('a.jpg')" in str(caught.value)


def test_headers(tmp_path):
    """Sizes refer to the upright image, as it is decoded."""
    image = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    names = []
    for ending in ("jpg", "png", "gif", "bmp", "webp"):
        names.append(f"plain.{ending}")
        image.save(tmp_path / names[-1])
        if ending in ("jpg", "png", "webp"):
            names.append(f"turned.{ending}")
            image.save(tmp_path / names[-1], exif=exif)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    expected = [
        Header(20, 30, 6) if name.startswith("turned") else Header(30, 20)
        for name in names
    ]
    names += ["empty.jpg", "folder.png", "no.png", "x" * 5000]
    found = read_headers(tmp_path, names)
    assert found[:8] == expected
    assert "not a JPEG" in found[8]
    assert found[9:] == ["there is no such file"] * 3


def test_turned_images_are_counted():
    def headers(names):
        return [Header(80, 60, 3), *map(header_of, names[1:])]

    (note,) = file.parse(make_content(), headers).notes
    assert note.startswith("1 of 3 images are turned upright")


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "not JSON in UTF-8: Expecting value"),
        (b"{", "not JSON"),
        ("{}".encode("utf-16"), "not JSON in UTF-8: 'utf-8' codec"),
        (b"[" * 100_000, "not JSON in UTF-8: .*recursion"),
        (b'{"images": ' + b"1" * 5000 + b"}", "limit"),
        (b'{"images": [{"id": 1, "id": 2}]}', "field `id` twice: .'id': 2"),
        (b"{}", "`categories` must be a list of objects. Received: no such"),
    ],
)
def test_files_that_are_not_json(tmp_path, text, message):
    path = tmp_path / "instances_train.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"instances_train.json': .*{message}"):
        file.read(path, tmp_path)

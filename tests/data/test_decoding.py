"""Image files are decoded as by Pillow, the reference."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_sasa.data import decode_image, find_corrupt, read_image
from keras_sasa.data.decoding import decode_part
from keras_sasa.data.image_headers import Header, read_headers

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the pipeline is the same on every backend",
)

# Blocks of one colour, which JPEG hardly changes.
COLORS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), "uint8")
RGB = Image.fromarray(COLORS.repeat(8, axis=0).repeat(8, axis=1))
RGBA = RGB.copy()
RGBA.putalpha(Image.linear_gradient("L").resize(RGB.size))
PALETTE = RGB.quantize(16)
GRAY = RGB.convert("L")
JPEG_ERROR = 8


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def bmp_of_four_bits(compression=0):
    """A palette of 16 colours, which Pillow can read but not write."""
    width, height = PALETTE.size
    colors = PALETTE.getpalette()[:48]
    palette = b"".join(
        bytes([*colors[i : i + 3][::-1], 0]) for i in range(0, 48, 3)
    )
    rows = np.asarray(PALETTE)[::-1]
    if compression:
        # Runs of 8 pixels of one colour; a row ends with 0, 0, the file with 1.
        pixels = b"".join(
            b"".join(bytes([8, color * 17]) for color in row[::8]) + b"\0\0"
            for row in rows
        )
        pixels += b"\0\1"
    else:
        pixels = (rows[:, ::2] * 16 + rows[:, 1::2]).tobytes()

    def integers(size, *values):
        return b"".join(value.to_bytes(size, "little") for value in values)

    begin = 14 + 40 + len(palette)
    header = b"BM" + integers(4, begin + len(pixels), 0, begin)
    header += integers(4, 40, width, height) + integers(2, 1, 4)
    header += integers(4, compression, len(pixels), 0, 0, 16, 16)
    return header + palette + pixels


FILES = {
    "BMP": encode(RGB, "BMP"),
    "BMP, alpha": encode(RGBA, "BMP"),
    "BMP, 8 bits": encode(PALETTE, "BMP"),
    "BMP, 4 bits": bmp_of_four_bits(),
    "BMP, 4 bits, compressed": bmp_of_four_bits(compression=2),
    "BMP, 1 bit": encode(RGB.convert("1"), "BMP"),
    "BMP, gray": encode(GRAY, "BMP"),
    "GIF": encode(PALETTE, "GIF"),
    "GIF, transparent": encode(PALETTE, "GIF", transparency=0),
    "GIF, frames": encode(
        PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]
    ),
    "JPEG": encode(RGB, "JPEG", quality=95),
    "JPEG, progressive": encode(RGB, "JPEG", quality=95, progressive=True),
    "JPEG, gray": encode(GRAY, "JPEG", quality=95),
    "JPEG, CMYK": encode(RGB.convert("CMYK"), "JPEG", quality=95),
    "PNG": encode(RGB, "PNG"),
    "PNG, alpha": encode(RGBA, "PNG"),
    "PNG, palette": encode(PALETTE, "PNG", transparency=0),
    "PNG, 2 bits": encode(RGB.quantize(4), "PNG", bits=2),
    "PNG, 1 bit": encode(RGB.convert("1"), "PNG"),
    "PNG, gray": encode(GRAY, "PNG", transparency=3),
    "PNG, gray, alpha": encode(RGBA.convert("LA"), "PNG"),
    "WebP": encode(RGB, "WEBP", quality=95),
    "WebP, alpha": encode(RGBA, "WEBP", lossless=True, exact=True),
    "WebP, frames": encode(
        RGB, "WEBP", lossless=True, save_all=True, append_images=[RGBA]
    ),
}


def in_a_pipeline(function, contents):
    dataset = tf.data.Dataset.from_tensor_slices(list(contents)).map(function)
    return list(dataset.as_numpy_iterator())


def reference(contents, channels=3):
    with Image.open(io.BytesIO(contents)) as image:
        image = ImageOps.exif_transpose(image)
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_kinds_of_files(channels):
    decoded = in_a_pipeline(lambda c: decode_image(c, channels), FILES.values())
    for (name, contents), pixels in zip(FILES.items(), decoded, strict=True):
        expected = reference(contents, channels)
        assert pixels.dtype == "uint8" and pixels.shape == expected.shape
        # The decoders round gray differently.
        error = JPEG_ERROR if name.startswith("JPEG") else 3 - channels
        assert abs(pixels - expected).max() <= max(error, 0), name


def test_high_byte_of_16_bits():
    """Pillow would clip values above 255."""
    pixels = np.arange(0, 65536, 71, "uint16")[:900].reshape(30, 30)
    contents = encode(Image.fromarray(pixels), "PNG")
    decoded = decode_image(contents, 1).numpy()[..., 0]
    np.testing.assert_array_equal(decoded, pixels >> 8)


def test_exif_orientation():
    """All orientations in all formats, for whole images and for parts."""
    contents = []
    for file_format in ("JPEG", "PNG", "WEBP"):
        options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
        # Values outside 1 to 8 are not orientations.
        for orientation in range(10):
            for endian in "<>":
                exif = Image.Exif()
                exif.endian = endian
                exif[0x0112] = orientation
                contents.append(
                    encode(
                        RGB,
                        file_format,
                        exif=exif,
                        **options.get(file_format, {}),
                    )
                )
    top, left, height, width = window = 3, 2, 9, 11
    decoded = in_a_pipeline(
        lambda c: (
            decode_image(c, 3),
            decode_part(c, 3, lambda shape: tf.constant(window)),
        ),
        contents,
    )
    for encoded, (whole, part) in zip(contents, decoded, strict=True):
        expected = reference(encoded)
        assert whole.shape == expected.shape
        assert abs(whole - expected).max() <= JPEG_ERROR
        expected = expected[top : top + height, left : left + width]
        assert part.shape == expected.shape
        assert abs(part - expected).max() <= JPEG_ERROR


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "options",
    [
        {"exif": b"Exif\0\0MM\0*" + b"\xff" * 20},
        {"xmp": b'<x:xmpmeta tiff:Orientation="6"/>'},
    ],
    ids=["damaged", "of XMP alone"],
)
def test_what_is_no_orientation(tmp_path, file_format, options):
    """For the pixels, and for the size that boxes are compared with."""
    contents = encode(RGB, file_format, **options)
    assert decode_image(contents, 3).shape == (24, 32, 3)
    (tmp_path / "image").write_bytes(contents)
    assert read_headers(tmp_path, ["image"]) == [Header(32, 24)]


def test_images_without_orientation_do_not_wait_for_python(monkeypatch):
    monkeypatch.setattr(
        "keras_sasa.data.orientation._orientation_in", lambda _: 1 / 0
    )
    names = ["JPEG", "JPEG, gray", "PNG", "PNG, palette"]
    in_a_pipeline(lambda c: decode_image(c, 3), [FILES[n] for n in names])


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_named(tmp_path, name):
    path = tmp_path / "half.jpg"
    path.write_bytes(FILES[name][: len(FILES[name]) // 2])
    with pytest.raises(ValueError, match=r"half.jpg' is not a readable image"):
        read_image(path, 3)
    (reason,) = find_corrupt([str(path)]).values()
    assert reason and "\n" not in reason and "Error" not in reason


@pytest.mark.parametrize(
    "contents", [b"", b"text", encode(RGB, "TIFF")], ids=["", "text", "TIFF"]
)
def test_other_files_are_named(tmp_path, contents):
    path = tmp_path / "other.jpg"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="other.jpg.*not a JPEG, PNG,"):
        read_image(path, 1)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing.png.*No such file"):
        read_image(tmp_path / "nothing.png", 3)


def test_wrong_channels():
    with pytest.raises(ValueError, match=r"`channels` must be 1 .*channels=4"):
        decode_image(FILES["PNG"], 4)

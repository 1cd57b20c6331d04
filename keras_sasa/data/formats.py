"""Formats of image files that the package reads."""

# Endings of file names, in lower case.
EXTENSIONS = (
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".webp",
)
FORMATS = "JPEG, PNG, GIF, BMP or WebP"

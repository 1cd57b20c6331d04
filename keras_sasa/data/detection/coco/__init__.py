"""COCO's format: a folder of images, and JSON files checked entry by entry."""

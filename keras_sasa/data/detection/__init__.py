"""Images with boxes: sources and batches."""

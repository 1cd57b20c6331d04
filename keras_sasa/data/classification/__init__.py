"""Images with one class each: sources and batches."""

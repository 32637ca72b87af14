"""Several runs of one prompt: side by side, or the best of many seeds."""

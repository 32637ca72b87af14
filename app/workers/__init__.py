"""Worker processes that take jobs from a queue, on this machine or on a Ray cluster."""

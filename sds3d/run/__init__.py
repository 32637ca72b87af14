"""A run on disk: its folder, checkpoints, events, previews, report and the files that it hands over."""

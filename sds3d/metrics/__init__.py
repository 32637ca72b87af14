"""Numbers about pictures and meshes; nothing here knows of a run."""

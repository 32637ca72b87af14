"""Numbers about images, meshes and the sides that a prior sees; nothing here knows of a run."""

"""The web page: `sds3d ui`. Runs belong to the queue on disk and to its workers; the page only looks and tells."""

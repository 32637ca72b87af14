"""Exports: meshes, splats, images and videos. One writer for each format; files are whole or absent."""

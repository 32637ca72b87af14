"""Text-to-image models in diffusers' layout: finding them, checking their files, loading them, asking them."""

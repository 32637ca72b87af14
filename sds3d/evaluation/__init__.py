"""How good a result is: the procedural world knows the true object of a prompt, and a classifier reads the renders."""

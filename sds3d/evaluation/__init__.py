"""How good a result is: prompts of the procedural world have a known true object, and a classifier of their own."""

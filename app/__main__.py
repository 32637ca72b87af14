"""python -m sds3d_app, the same as the command sds3d."""

from .cli import main

if __name__ == "__main__":
    main()

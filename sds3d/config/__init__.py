"""A run's options: one RunConfig, made of layers, and errors that name the option.

Where a value is from, each layer over the one before: the option's own default; what prior, scene and guidance bring
for other parts (`default_overrides`); a preset; a recipe; a file (--config); the command line or the caller. `sds3d
generate ... --print-config` shows it for each option. layers.py merges, recipes.py reads recipes, run_config.py has the
options and the rules between them.
"""

from sds3d.config.files import map_files
from sds3d.config.layers import PARTS
from sds3d.config.recipes import read_recipe, recipe_names
from sds3d.config.run_config import (
    LIVE,
    PRESETS,
    RunConfig,
    in_all_stages,
    load_config,
    local_files,
    option,
    printable,
    read_json_object,
    resolve,
)

__all__ = [
    "LIVE",
    "PARTS",
    "PRESETS",
    "RunConfig",
    "in_all_stages",
    "load_config",
    "local_files",
    "map_files",
    "option",
    "printable",
    "read_json_object",
    "read_recipe",
    "recipe_names",
    "resolve",
]

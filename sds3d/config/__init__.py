"""What decides a run: its options, presets, what may change on the way, and errors that name the option."""

from sds3d.config.run_config import RunConfig, load_config, read_json_object

__all__ = ["RunConfig", "load_config", "read_json_object"]

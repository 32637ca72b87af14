"""Layers of options over each other, and where each value is from.

A tree has the shape of a config; each leaf knows who gave its value. Layers are merged one over the other: objects
key by key, anything else as a whole. Where a part is named anew, the options of the old one go with it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from sds3d.errors import ConfigError
from sds3d.guidance import GUIDANCE
from sds3d.guidance.noise import NOISE
from sds3d.guidance.timesteps import TIMESTEPS
from sds3d.options import Options
from sds3d.priors import PRIORS
from sds3d.scenes import SCENES

# Parts that are chosen by name: {"name": "sds", "guidance_scale": 20}, or just "sds".
PARTS: dict[str, Mapping[str, type[Options]]] = {
    "scene": SCENES,
    "prior": PRIORS,
    "guidance": GUIDANCE,
    "timesteps": TIMESTEPS,
    "noise": NOISE,
}
DEFAULT, YOU = "default", "you"
MAX_DEPTH = 16


class Leaf(NamedTuple):
    """One value, who gave it, and whether that was a person: a preset, a file, the command line, the caller."""

    value: Any
    source: str
    is_said: bool


Tree = dict[str, Any]  # dict[str, Leaf | Tree]


def said_trees(source: str, data: Mapping[str, Any]) -> tuple[Tree, ...]:
    """What a person says, with nested or dotted keys: a tree a key, because a later one may name another part."""
    trees = []
    for dotted, value in data.items():
        nested = value
        for name in reversed(str(dotted).split(".")):
            nested = {name: nested}
        trees.append(tree_of(nested, source, is_said=True))
    return tuple(trees)


def tree_of(data: Mapping[str, Any], source: str, is_said: bool = False) -> Tree:
    """A config's data, in which a part may be a name or an object of its class, as a tree."""
    return {str(key): _node(value, source, is_said, str(key)) for key, value in data.items()}


def _node(value: Any, source: str, is_said: bool, part: str = "", depth: int = 1) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{source}: options are nested at most {MAX_DEPTH} deep")
    table = PARTS.get(part, {})
    if isinstance(value, Options) and (not table or table.get(getattr(value, "name", "")) is type(value)):
        value = value.model_dump(mode="json")  # an object of a class that nobody can name stays one
    elif table and isinstance(value, str):
        is_model = part == "prior" and value not in table and "/" in value  # a model's folder or hub id
        value = {"name": "diffusers", "model": value} if is_model else {"name": value}
    if isinstance(value, Mapping):
        return {str(key): _node(inner, source, is_said, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        value = [item.model_dump(mode="json") if isinstance(item, Options) else item for item in value]
    return Leaf(value, source, is_said)


def merge(base: Tree, over: Tree, parts: Mapping[str, Mapping[str, type[Options]]] = PARTS) -> Tree:
    """A new tree, `over` on top of `base`."""
    merged = dict(base)
    for key, node in over.items():
        old = merged.get(key)
        if isinstance(old, Leaf) and isinstance(old.value, Options):
            old = tree_of(old.value.model_dump(mode="json"), old.source, old.is_said)
        if isinstance(node, dict) and isinstance(old, dict):
            if "name" in node and name_in(node) != name_in(old):
                old = _renamed(parts.get(key, {}), old, name_in(node))
            merged[key] = merge(old, node, parts={})
        else:
            merged[key] = node
    return merged


def name_in(node: Any) -> Any:
    """The name of the part that a node of a tree describes; None where it says none."""
    name = node.get("name") if isinstance(node, dict) else None
    return name.value if isinstance(name, Leaf) else None


def _renamed(table: Mapping[str, type[Options]], old: Tree, name: Any) -> Tree:
    """The defaults of the part of another name; a kind of the old part keeps what it was given."""
    kind = table.get(name) if isinstance(name, str) else None
    if kind is None:
        return {}
    defaults = tree_of(kind.model_construct().model_dump(mode="json"), DEFAULT)
    if not issubclass(kind, table.get(str(name_in(old)), type(None))):
        return defaults
    return merge(defaults, _pruned(old, lambda leaf: leaf.is_said or leaf.source != DEFAULT))


def _pruned(tree: Tree, keeps: Callable[[Leaf], bool]) -> Tree:
    """The tree with those leaves only, and no empty objects."""
    pruned = {key: _pruned(node, keeps) if isinstance(node, dict) else node for key, node in tree.items()}
    return {key: node for key, node in pruned.items() if (keeps(node) if isinstance(node, Leaf) else node)}


def values(tree: Tree) -> dict[str, Any]:
    """The plain data of a tree."""
    return {key: values(node) if isinstance(node, dict) else node.value for key, node in tree.items()}


def said_values(tree: Tree) -> dict[str, Any]:
    """The plain data of a tree as JSON, of those leaves only that a person gave."""
    said: dict[str, Any] = to_jsonable_python(values(_pruned(tree, lambda leaf: leaf.is_said)))
    return said


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested data, or a tree, by dotted keys; an empty object is a value."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        is_object = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_object else {prefix + key: value}
    return flat

"""Compiled ops: one module each, with its public function, pure-torch reference and autograd registration."""

from sds3d.ops.extension import backend_info

__all__ = ["backend_info"]

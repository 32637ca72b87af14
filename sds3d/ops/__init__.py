"""Compiled ops: one module each, with its public function, pure-torch reference and autograd registration.

The functions named `..._fake` tell torch.compile and torch.export the shapes of an op's results.
"""

from sds3d.ops.extension import backend_info

__all__ = ["backend_info"]

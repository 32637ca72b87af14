"""The same asymmetric body as the other tests of the export have."""

from tests.export.body import textured_body

__all__ = ["textured_body"]

"""Whether tests run at the sizes that docs/reliability.md promises (`make test-reliability`), or at small ones."""

import os

import pytest

FULL = os.environ.get("SDS3D_FULL", "0") not in ("", "0")
at_full_size = pytest.mark.skipif(not FULL, reason="takes long: make test-reliability")

"""Programs and packages that tests compare with, where they are installed. CI installs them all."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Final

import pytest

needs_zstd: Final = pytest.mark.skipif(
    shutil.which("zstd") is None, reason="GNU tar needs zstd to read a .tar.zst"
)

needs_natsrpy: Final = pytest.mark.skipif(
    importlib.util.find_spec("natsrpy") is None, reason='natsrpy is in the group "dev"'
)

"""Bare Starlette, to compare with: run by ``tests.bench.http``."""

from __future__ import annotations

from tests.bench.http import serve_bare

if __name__ == "__main__":
    serve_bare()

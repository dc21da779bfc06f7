"""Options of the tests that serve."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzzed", type=int, default=300, help="hostile requests to send (full: 3000)")

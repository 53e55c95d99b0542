"""Fixtures that several tests share."""

import os
from collections.abc import Iterator

import pytest
from systemdbox import Box, unsupported


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    """A real systemd; tests share it, so each takes names of its own. In CI it must run, elsewhere it may."""
    reason = unsupported()
    if reason and os.environ.get("CI"):
        pytest.fail(f"these tests must not be skipped in CI: {reason}")
    if reason:
        pytest.skip(reason)
    with Box() as running:
        yield running

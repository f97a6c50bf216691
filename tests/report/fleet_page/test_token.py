"""The token of a fleet's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import one_line

from sheaf.core.errors import FleetError
from sheaf.report.fleet_page.token import read_token


def test_a_token_is_created_once_for_the_owner_only(tmp_path: Path) -> None:
    token = read_token(tmp_path)
    assert len(token) >= 32
    assert read_token(tmp_path) == token
    assert (tmp_path / "page.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40, "ä".encode() * 20])
def test_a_file_without_a_token_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "page.token").write_bytes(content)
    with pytest.raises(FleetError) as error:
        read_token(tmp_path)
    assert "holds no token of at least 16 letters and digits; delete it" in one_line(error)

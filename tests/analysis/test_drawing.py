import sys
from pathlib import Path

import pytest

from psgd.analysis.drawing import check_drawable
from psgd.errors import ConfigurationError


def test_what_can_not_be_drawn_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_drawable(tmp_path / "scale.svg")
    with pytest.raises(ConfigurationError, match=r"must end in one of .*png.*svg.*, got .*scale\.xyz"):
        check_drawable(tmp_path / "scale.xyz")
    with pytest.raises(ConfigurationError, match=r"wants the folder .*nowhere, which is not there"):
        check_drawable(tmp_path / "nowhere" / "scale.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"takes matplotlib: pip install 'psgd\[plots\]'"):
        check_drawable(tmp_path / "scale.png")

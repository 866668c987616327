"""The house is kept in order: what no linter checks."""

import ast
import filecmp
from pathlib import Path

import pytest

from scripts.generate_protos import PROTOS, generate

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "psgd" / "transport" / "generated"
MODULES = sorted(path for path in (ROOT / "psgd").rglob("*.py") if not path.is_relative_to(GENERATED))
MOST_LINES = 450
SAY_NOTHING = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_no_module_outgrows_one_story() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_file_is_a_dumping_ground() -> None:
    folders = (ROOT / name for name in ("psgd", "scripts", "tests"))
    assert [path for folder in folders for path in folder.rglob("*") if path.stem in SAY_NOTHING] == []


@pytest.mark.skipif(not PROTOS.is_dir(), reason="no wire contract yet")
def test_generated_code_is_what_protoc_makes_of_the_protos(tmp_path: Path) -> None:
    generate(PROTOS, tmp_path)
    made = _files(tmp_path)
    assert made == _files(GENERATED)
    _, different, unreadable = filecmp.cmpfiles(tmp_path, GENERATED, made, shallow=False)
    assert (different, unreadable) == ([], []), "run `make protos`"


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py*") if path.suffix != ".pyc")

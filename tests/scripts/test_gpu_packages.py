import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from scripts import gpu_packages


def test_nothing_is_missing_where_psgd_is_tested() -> None:
    assert gpu_packages.missing(gpu_packages.needed()) == []


def test_what_is_needed_is_psgds_own_and_what_its_tests_import() -> None:
    names = [text.split(">")[0].split("[")[0] for text in gpu_packages.needed()]
    assert {"torch", "grpcio", "ray", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "psutil"} <= {*names}
    assert not {"mypy", "ruff", "matplotlib"} & {*names}


def test_missing_is_what_is_not_there_or_in_another_version_but_never_torch() -> None:
    wanted = ["no-such-thing>=3", "numpy<1", "torch>=999", "pytest>=1"]
    assert gpu_packages.missing(wanted) == ["no-such-thing>=3", "numpy<1"]


def test_what_an_installed_package_needs_is_needed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        version = "1.0"
        requires = ("deep>=2", 'elsewhere; sys_platform == "nowhere"', 'more; extra == "train"', 'other; extra == "x"')

    def distribution(name: str) -> Installed:
        if name == "shallow":
            return Installed()
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gpu_packages, "distribution", distribution)
    assert gpu_packages.missing(["shallow[train]>=1"]) == ["deep>=2", "more"]


def test_wheels_are_chosen_that_are_missing_and_never_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "no_such_thing-3.0-py3-none-any.whl",
        "needed_by_it-1.0-py3-none-any.whl",
        "numpy-0.9-cp311-cp311-manylinux2014_x86_64.whl",
        "pytest-99.0-py3-none-any.whl",
        "torch-99.0-cp311-cp311-manylinux2014_x86_64.whl",
        "notes.txt",
    ):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpu_packages, "needed", lambda: ["no-such-thing>=3", "numpy<1", "torch>=99", "pytest"])
    chosen = [wheel.name.split("-")[0] for wheel in gpu_packages.choose(tmp_path)]
    assert chosen == ["needed_by_it", "no_such_thing", "numpy"]


def test_what_is_missing_is_one_line_with_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_packages, "needed", lambda: ["no-such-thing[all]>=3,<4", "nor-this"])
    assert gpu_packages.main(["check", "/some/wheels"]) == 1
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert capsys.readouterr().err == (
        "gpu_check: packages are missing: no-such-thing[all]>=3,<4, nor-this; fetch them on a machine with network, "
        f"with `python3 -m pip download --only-binary=:all: --python-version {version} -d wheels "
        "'no-such-thing[all]>=3,<4' 'nor-this'`, and put them into /some/wheels\n"
    )


def test_without_cuda_torch_is_named_with_its_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_packages.main(["cuda"]) == 1
    assert capsys.readouterr().err == (
        f"gpu_check: torch {torch.__version__} of {sys.executable} finds no CUDA device: "
        "run this on a machine with a GPU\n"
    )


def test_without_torch_the_remedy_is_another_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gpu_packages.main(["cuda"]) == 1
    assert capsys.readouterr().err == (
        f"gpu_check: {sys.executable} has no torch: name a Python that has a CUDA build of it, with PYTHON=...\n"
    )


def test_an_unknown_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_packages.main([]) == 1
    assert capsys.readouterr().err == "gpu_check: expected cuda, choose WHEELS or check WHEELS, got nothing\n"

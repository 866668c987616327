"""What psgd's tests need on a machine with a GPU and without network: gpu_packages.py cuda | choose | check [WHEELS].

``cuda`` says whether torch has a device here, ``choose`` prints the wheels to install from the folder, ``check`` says
what is missing still. In one line each, with the remedy; and only with the standard library, but for the reader of
requirements, which comes with pip.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename
except ImportError:  # pip brings one along
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename  # type: ignore[assignment]

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
FOR_TESTS = {"hypothesis", "psutil", "pytest", "pytest-timeout", "pytest-xdist"}
"""Of the extra ``dev``."""
THE_MACHINES_OWN = {"torch"}
"""Never replaced: another build would not fit the driver."""


def needed() -> list[str]:
    """What psgd and its tests import, as ``pyproject.toml`` says it."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extra = [text for text in project["optional-dependencies"]["dev"] if Requirement(text).name in FOR_TESTS]
    return [*project["dependencies"], *extra]


def missing(requirements: Iterable[str]) -> list[str]:
    """Those that are not installed in a version that will do, and those of what is installed."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(requirements)
    while waiting:
        text = waiting.pop(0)
        requirement = Requirement(text)
        if text in seen or canonicalize_name(requirement.name) in THE_MACHINES_OWN:
            continue
        seen.add(text)
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            installed = None
        if installed is None or not requirement.specifier.contains(installed.version, prereleases=True):
            found.setdefault(canonicalize_name(requirement.name), text.partition(";")[0].strip())
        else:
            waiting += _wanted_by(installed.requires or (), requirement.extras)
    return list(found.values())


def _wanted_by(requirements: Iterable[str], extras: Iterable[str]) -> Iterator[str]:
    """Those whose markers hold here, without or with an extra."""
    for text in requirements:
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield text


def choose(wheels: Path) -> list[Path]:
    """The wheels of packages that are not installed in a version that will do.

    A wheel may need others that only its own metadata name, so whatever the machine has not at all is taken, too.
    """
    wanted = {canonicalize_name(Requirement(text).name) for text in missing(needed())}
    return [wheel for wheel in sorted(wheels.glob("*.whl")) if _name(wheel) in wanted or not _is_there(_name(wheel))]


def _name(wheel: Path) -> str:
    return str(parse_wheel_filename(wheel.name)[0])


def _is_there(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return name in THE_MACHINES_OWN
    return True


def check(wheels: Path) -> str | None:
    """What is missing, and how to fetch it; None if all is there."""
    lacking = missing(needed())
    if not lacking:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    quoted = " ".join(f"'{text}'" for text in lacking)
    return (
        f"packages are missing: {', '.join(lacking)}; fetch them on a machine with network, with `python3 -m pip "
        f"download --only-binary=:all: --python-version {version} -d wheels {quoted}`, and put them into {wheels}"
    )


def check_cuda() -> str | None:
    """Why nothing can be checked here; None if torch has a device."""
    try:
        import torch
    except ImportError:
        return f"{sys.executable} has no torch: name a Python that has a CUDA build of it, with PYTHON=..."
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} of {sys.executable} finds no CUDA device: run this on a machine with a GPU"
    print(f"gpu_check: torch {torch.__version__}, {torch.cuda.get_device_name(0)}", flush=True)
    return None


def main(words: Sequence[str]) -> int:
    """Do what the word says; see the module."""
    match words:
        case ["cuda"]:
            complaint = check_cuda()
        case ["choose", folder]:
            print(*choose(Path(folder)), sep="\n", end="")
            return 0
        case ["check", folder]:
            complaint = check(Path(folder))
        case _:
            complaint = f"expected cuda, choose WHEELS or check WHEELS, got {' '.join(words) or 'nothing'}"
    if complaint is not None:
        print(f"gpu_check: {complaint}", file=sys.stderr)
    return 0 if complaint is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

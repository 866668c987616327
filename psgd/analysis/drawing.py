"""Whether a picture can be drawn: asked before the work whose end it is."""

from pathlib import Path

from psgd.errors import ConfigurationError


def check_drawable(target: Path) -> None:
    """Refuse before anything is done what could not be drawn after it.

    Raises:
        ConfigurationError: if matplotlib is missing or knows no such file, or there is no such folder.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError(f"to draw {target} takes matplotlib: pip install 'psgd[plots]'") from None
    if not target.parent.is_dir():
        raise ConfigurationError(f"the picture {target} wants the folder {target.parent}, which is not there: make it")
    known = Figure().canvas.get_supported_filetypes()
    if target.suffix.removeprefix(".") not in known:
        raise ConfigurationError(f"the picture's name must end in one of {', '.join(sorted(known))}, got {target}")

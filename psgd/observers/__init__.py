"""Observers of a run: small objects that are told every record and write, show or keep it."""

from psgd.observers.broadcast import Broadcast
from psgd.observers.divergence import DivergenceWarning
from psgd.observers.jsonl import JsonLinesWriter
from psgd.observers.progress import LinePrinter, Meter, ProgressBar, progress_display
from psgd.observers.recorder import Recorder
from psgd.observers.tensorboard import TensorBoardWriter
from psgd.observers.tolerant import Tolerant

__all__ = [
    "Broadcast",
    "DivergenceWarning",
    "JsonLinesWriter",
    "LinePrinter",
    "Meter",
    "ProgressBar",
    "Recorder",
    "TensorBoardWriter",
    "Tolerant",
    "progress_display",
]

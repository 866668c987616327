"""Says when a run has begun to diverge: its figures alone may look like those of any other."""

import logging

from psgd.core.messages import Status
from psgd.runlog import Iteration, Record

log = logging.getLogger("psgd")


class DivergenceWarning:
    """Warns of the first gradient that was refused because it held NaN or Inf; all of them are counted as dropped."""

    def __init__(self) -> None:
        self._warned = False

    def __call__(self, record: Record) -> None:
        """Look at the record."""
        if self._warned or not isinstance(record, Iteration) or record.status != Status.NONFINITE:
            return
        self._warned = True
        log.warning(
            "a gradient held NaN or Inf at step %d (slot %d, loss %s): such updates are left out; "
            "a lower learning rate may help",
            record.step,
            record.slot,
            record.loss,
        )

    def close(self) -> None:
        """Nothing to let go of."""

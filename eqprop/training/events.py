"""Events for TensorBoard, written at once.

``tensorboardX.SummaryWriter`` hands them to a thread of its own, in which a full disk would end
unheard, and the training after it wait for ever; so its file format is used here, without it.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from eqprop.training.metrics import flat


@final
class Events:
    """A file of events in a folder; what earlier files tell of ``epoch`` and later is hidden.

    Raises:
        OSError: here and in ``add``, where the file cannot be written.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        # Slow imports, for who trains only.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder.mkdir(exist_ok=True)
        # Absolute, or its beginning might be taken for the name of a cloud. Two processes that
        # follow each other within a second must not write over each other's file.
        prefix = str(folder.absolute() / "events")
        self._file = EventsWriter(prefix, f".{os.getpid()}")
        # Its classes are made at run time, which type checkers do not see.
        self._proto: Any = event_pb2
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._file.write_event(self._proto.Event(step=epoch, session_log=start))

    def add(self, row: Mapping[str, Any]) -> None:
        """All numbers of a row of metrics, at its epoch."""
        from tensorboardX.summary import scalar

        for name, value in flat(row).items():
            where = {"wall_time": time.time(), "step": row["epoch"]}
            self._file.write_event(self._proto.Event(**where, summary=scalar(name, value)))
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to be written, for every row was."""
        self._file.close()

"""Runs the application on granian."""

from __future__ import annotations

import os
from pathlib import Path

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels


def serve(data: Path, host: str, port: int, workers: int = 1, *, log: bool = False) -> None:
    """Serve the releases of a data folder until the process is told to stop.

    The workers are processes of their own: they read ``LODEMARK_DATA``, which is set here.

    Parameters
    ----------
    data : Path
        The data folder; its ``public`` holds the releases.
    host, port : str, int
        Where to listen. An address in use ends the process with granian's message.
    workers : int
        Processes; one answers thousands of requests a second.
    log : bool
        Let granian write its own start and stop messages.
    """
    os.environ["LODEMARK_DATA"] = str(data.resolve())
    Granian(
        "pricing.web.app:from_environment",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        websockets=False,
        log_enabled=log,
        log_level=LogLevels.warning,
    ).serve()

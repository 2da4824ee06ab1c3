"""Serves the pages of a run until it is told to end."""

import gc
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

from llmdirect.common.errors import MissingError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.encoding.encoders import Encoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.runs.inputs import load_run_encoder

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
"""Names of this machine, as an address and as browsers name it."""


def serve(
    run: Path | str,
    *,
    ready: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 8000,
    dataset: Path | str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> None:
    """Serves on host and port (0: a free one) and calls `ready` with the address; returns after Ctrl-C.

    dataset, encoder, device: as for `explain` and `recommend_new`. Raises what opening the run raises,
    MissingError where the extra `explore` is not installed, OSError where the port is taken.
    """
    try:
        import uvicorn

        from llmdirect.explore.app import make_app
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed: pip install 'llmdirect[explore]'") from None

    @cache
    def loaded_encoder() -> Encoder:
        return load_run_encoder(explainer.trained.run, encoder, device)

    with progress.task("Opening the run", None, "files"):
        explainer = Explainer.open(run, dataset)
        app = make_app(explainer, loaded_encoder, list(LOCAL) if host in LOCAL else None)
    gc.collect()
    gc.freeze()  # what is open stays open: looking through it for garbage took a third of a slow answer
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise OSError(f"{host}:{port}: {error.strerror}; choose another --port or --host") from None
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listening])

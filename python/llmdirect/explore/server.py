"""HTTP server of the pages of a run."""

import gc
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from llmdirect.common.errors import MissingError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.encoding.encoders import PassageEncoder
from llmdirect.explanation.explainer import Explainer
from llmdirect.runs.inputs import load_run_encoder

LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")
"""Names of this machine, as addresses and as browsers send them; other spellings are accepted, too."""


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
    """Serve the pages of a run until Ctrl-C.

    Parameters
    ----------
    run
        Run folder.
    ready
        Called with the address when the server listens.
    host, port
        Address to listen on; port 0 selects a free one. Requests under other names than that of the host and
        those of this machine are refused.
    dataset, encoder, device
        As for `explain` and `recommend_new`.

    Raises
    ------
    MissingError
        If the extra `explore` is not installed.
    OSError
        If the port is in use; also what opening the run raises.
    """
    try:
        import uvicorn

        from llmdirect.explore.app import make_app
        from llmdirect.explore.http import QuietServer, TimedProtocol
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed: pip install 'llmdirect[explore]'") from None

    @cache
    def loaded_encoder() -> PassageEncoder:
        return load_run_encoder(explainer.trained.run, encoder, device)

    with progress.task("Opening the run", None, "files"):
        explainer = Explainer.open(run, dataset)
        app = make_app(explainer, loaded_encoder, [*LOCAL, host])
    gc.collect()
    gc.freeze()  # the run stays open: collecting over its objects took a third of the time of slow answers
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except socket.gaierror as error:
            raise OSError(f"{host}: {error.strerror}; choose another `host`, such as 127.0.0.1") from None
        except OSError as error:
            raise OSError(f"{host}:{port}: {error.strerror}; choose another `port` or `host`") from None
        listener.listen()
        url_host = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(app, http=TimedProtocol, ws="none", log_level="warning", server_header=False)
        with suppress(KeyboardInterrupt):  # how the server is meant to be ended
            ready(f"http://{url_host}:{listener.getsockname()[1]}/")
            QuietServer(config).run(sockets=[listener])

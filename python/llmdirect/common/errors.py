"""Exceptions of the package, by what the user can do about them."""

from typing import Final


class LlmdirectError(Exception):
    """Base class of the errors that the package raises itself.

    Invalid arguments raise `ValueError` and files that cannot be read or written `OSError`, as usual. The
    command line prints the message of an error and exits with code 1.
    """


class DataError(LlmdirectError, ValueError):
    """Invalid content of a file, a table or a manifest.

    Raised for input that is damaged, malformed or contradicts itself, and for a dataset that leaves nothing
    to train or rank. The message names the file, what is wrong with it, and the cure.
    """


class MismatchError(LlmdirectError, ValueError):
    """Two artefacts that do not belong together.

    Raised, for example, for an embedding store of another encoder or token format than requested, and for a
    training run of another dataset or other settings.
    """


class BusyError(LlmdirectError):
    """A folder or file that another process is writing.

    Raised at once instead of waiting; the call succeeds when the other process has ended.
    """


class MissingError(LlmdirectError, LookupError):
    """A user, item, model, device, category or optional package that does not exist here.

    Raised for what is requested by name. A file that does not exist raises `FileNotFoundError`.
    """


class InternalError(LlmdirectError, RuntimeError):
    """A defect of the package itself: a panic of the Rust extension.

    Nothing is wrong with the input, at least nothing that should end like this. The process can go on, but
    arrays that the failed call was to fill hold no result. The text asks for a report and has what one
    needs; the environment variable `RUST_BACKTRACE=1` prints where the extension was.
    """

    def __str__(self) -> str:
        return (
            f"internal error: {super().__str__()}; this is a defect of llmdirect, please report it "
            f"{_tracker()} with the command or code that led to it ({_versions()})"
        )


_TRACKERS: Final = ("issues", "repository", "homepage")
"""Labels of the addresses in the package's metadata (`project.urls`), by preference."""


def _tracker() -> str:
    """Where defects are reported, from the metadata of the installed package."""
    from importlib import metadata  # as `platform`: for errors alone, not for `--help`

    try:
        entries = metadata.metadata("llmdirect").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # run from its source
        entries = []
    parts = (entry.partition(",") for entry in entries)
    urls = {label.strip().lower(): url.strip() for label, _, url in parts}
    url = next((urls[label] for label in _TRACKERS if label in urls), None)
    return f"at {url}" if url else "on the page of its repository"


def _versions() -> str:
    """Versions of what a defect may depend on."""
    import platform
    from importlib import metadata

    from llmdirect import _core

    names = ("numpy", "torch", "polars")
    versions = [f"llmdirect {_core.__version__}", f"Python {platform.python_version()}"]
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([*versions, platform.platform()])

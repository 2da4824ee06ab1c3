"""Exceptions of the package, by what the user can do about them."""


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

"""What can go wrong, by what the user can do about it."""


class LlmdirectError(Exception):
    """Base of the package's own errors; the command line prints its message and exits with 1."""


class DataError(LlmdirectError, ValueError):
    """A file or table holds something it must not hold; the message names the place and the cure."""


class MismatchError(LlmdirectError, ValueError):
    """Two artefacts do not belong together: a store of another model, a checkpoint of another dataset."""


class BusyError(LlmdirectError):
    """Another process is writing the same folder."""


class MissingError(LlmdirectError, LookupError):
    """Something asked for by name does not exist: a user, an item, a model, a device."""

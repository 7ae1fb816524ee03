"""Errors that edgeseg raises on purpose.

Each message says what was found, what was expected and what to do. Anything else that
escapes from the package is a bug.
"""


class EdgesegError(Exception):
    """Base of every error that edgeseg raises on purpose."""


class InputError(EdgesegError, ValueError):
    """A frame, file or argument that cannot be used as it is."""


class SourceLostError(InputError):
    """A camera or stream that was lost and did not come back in the time it was given."""


class EngineError(EdgesegError):
    """An engine file that is missing, damaged, foreign, or not usable on this machine."""


class CheckpointError(EdgesegError):
    """A training checkpoint or pre-trained weight file that does not fit the network."""


class ConfigError(EdgesegError, ValueError):
    """A configuration that contradicts itself or the network."""


class MissingDependencyError(EdgesegError, ImportError):
    """An optional part of edgeseg that is not installed; the message names the extra."""


class OutputError(EdgesegError, OSError):
    """A result that could not be written; nothing half-written is left behind."""


class TrainingError(EdgesegError):
    """A training run that cannot go on; the message tells what is left of it."""


def printable(text: str, length: int = 500, replacement: str = "?") -> str:
    """What a message may quote of a file: no control characters that a terminal obeys, no book."""
    return "".join(c if c.isprintable() else replacement for c in text[:length])

"""Whether a path can be a source at all."""

from __future__ import annotations

import os
import stat

from discovery.source import SourceError


def check_path(path: str) -> None:
    """Make sure that there is a file or folder that may be read.

    Raises:
        SourceError: there is not.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)
        elif stat.S_ISREG(mode):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        else:
            raise SourceError(f"{path} is neither a file nor a folder: name one of those")
    except (FileNotFoundError, NotADirectoryError):
        raise not_there(path) from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def not_there(path: str) -> SourceError:
    """Return the error of a path at which there is nothing."""
    return SourceError(f"{path} does not exist: create it, or name another file or folder")

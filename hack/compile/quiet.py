"""Says what compilers say only where it matters: after a failure."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_unless_it_fails() -> Iterator[None]:
    """Keep back what this process and its children print; print it, as errors, if the block raises."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Compilers write to the descriptors, which they inherit.
    out, err = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            if failed:
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace"))
                sys.stderr.flush()

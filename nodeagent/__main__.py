"""`python -m nodeagent` is `nodeagent`; as process 1 of a container it keeps an agent running."""

import sys
from typing import NoReturn

from nodeagent.init import Kept, is_process_one, keep


def main(kept: Kept | None = None) -> NoReturn:
    """Run the command line; `kept` is given where process 1 keeps the agent running."""
    # Imported here because process 1 stays small.
    from nodeagent.start import nodeagent

    nodeagent(kept)


if is_process_one() and sys.argv[1:2] == ["run"]:
    sys.exit(keep(main))
main()

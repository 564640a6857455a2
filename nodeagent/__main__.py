"""`python -m nodeagent` is `nodeagent`; as process 1 of a container it keeps an agent running."""

import sys
from typing import NoReturn

from nodeagent import load_structlog
from nodeagent.init import is_process_one, keep


def main(died: str = "") -> NoReturn:
    """Run the command line; `died` is why the agent before this one did, if there was one."""
    load_structlog()
    from nodeagent.cli.main import main as run

    run(prog_name="nodeagent", obj=died)
    raise SystemExit(0)


if is_process_one() and sys.argv[1:2] == ["run"]:
    sys.exit(keep(main))
main()

"""`python -m nodeagent.worker`: how the agent starts a worker."""

from nodeagent.worker.worker import main

main()

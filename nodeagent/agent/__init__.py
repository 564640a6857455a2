"""The agent's process: follows the source, orders changes, supervises what carries them out."""

"""The daemon's command line: its flags, and the settings they make."""

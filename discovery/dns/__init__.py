"""The mesh zone, answered over UDP and TCP."""

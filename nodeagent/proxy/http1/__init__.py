"""HTTP/1.1: heads, and the streams on both sides of an exchange."""

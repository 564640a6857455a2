"""HTTP/2 (RFC 9113), both sides: one connection carries many streams."""

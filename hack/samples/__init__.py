"""Small real servers that the lab and the demo put behind Services."""

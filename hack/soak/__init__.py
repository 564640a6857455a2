"""`make soak`: hours of traffic, bad clients and endpoints, killed workers, and what may not come of it."""

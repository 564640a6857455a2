"""Counters and shared numbers in memory that agent and workers map, and which number stands where."""

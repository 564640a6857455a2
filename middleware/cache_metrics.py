"""What is counted of caches."""

from __future__ import annotations

from middleware.contract import Metric

HITS = Metric(
    "svcmesh_cache_hits", "Requests that were answered with a fresh response that the cache had kept."
)
STALE = Metric(
    "svcmesh_cache_stale", "Requests that were answered with a stale response that the cache had kept."
)
MISSES = Metric("svcmesh_cache_misses", "Requests that the cache had no usable response for, and sent on.")
VALIDATED = Metric("svcmesh_cache_validated", "Kept responses that an endpoint said are still valid (304).")
COLLAPSED = Metric(
    "svcmesh_cache_collapsed",
    "Requests that were answered with the response to an equal one that they waited for.",
)
STORED = Metric("svcmesh_cache_stored", "Responses that the cache has kept.")
EVICTED = Metric("svcmesh_cache_evicted", "Kept responses that were dropped to make room for others.")
PURGED = Metric("svcmesh_cache_purged", "Kept responses that were dropped because somebody purged the cache.")
HELD = Metric("svcmesh_cache_bytes", "Bytes of kept responses, of the worker that has most.", "gauge")

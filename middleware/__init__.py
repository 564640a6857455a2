"""What happens to a request on its way: one module a middleware, one ordered list of them."""

__distribution__ = "svcmesh"  # who this package belongs to: see nodeagent.start

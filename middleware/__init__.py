"""What happens to a request on its way: one module a middleware, one ordered list of them."""

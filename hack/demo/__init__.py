"""`make demo` and `make smoke`: a small shop of real servers, and an agent that carries its traffic."""

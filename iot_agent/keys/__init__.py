"""Where keys live: one module a backend, one conformance suite for all of them."""

"""Keys and certificates: one module for each place where keys are kept; one test suite for all of them."""

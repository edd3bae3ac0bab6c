"""The hot path: one call from the client's socket to the provider's and back, and its settlement."""

"""What upstreams speak: address, credentials, error classes; mostly one table."""

"""What is kept of the bodies, how it is sealed, and for how long."""

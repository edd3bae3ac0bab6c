"""The journal every record is durable in, and the questions it answers."""

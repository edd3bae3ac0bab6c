"""What a record is: pure values, no I/O, no clock, no randomness."""

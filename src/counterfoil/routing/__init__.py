"""Which targets a call may go to, in which order, and when to try the next."""

"""What clients speak, one module a protocol: peek at a request, meter an answer, render an error."""

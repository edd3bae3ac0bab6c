"""Usage becomes lines: a versioned price book, a match, and exact arithmetic."""

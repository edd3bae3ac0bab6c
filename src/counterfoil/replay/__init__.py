"""Running captured calls again, comparing the answers, playing recordings back."""

"""Many reruns as one run: what is asked, who drives it, what came of it. docs/decisions/0021 says why it is so."""

"""Which bug an implementation has: its wrong answers, beside those of the catalogue's mutants to the same questions."""

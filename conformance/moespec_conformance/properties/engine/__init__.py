"""How properties are drawn, asked, compared, shrunk and kept; what they say stands in the files above."""

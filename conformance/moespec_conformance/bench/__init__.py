"""How long the reference takes, and how near that is to what the machine could do at all (`moespec bench`)."""

"""Files of other people's arrays."""

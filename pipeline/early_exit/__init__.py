"""Early exit: answers from the first layers of a model, by the vote of a portable classifier."""

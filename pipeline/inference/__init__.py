"""From samples to activations: prompts and pictures encoded, packed, passed through the model and recorded."""

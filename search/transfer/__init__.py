"""What Super Neurons carry over to other tasks, prompts, pictures, layers and models."""

"""The built-in world: an endless, seeded supply of pictures of a few shapes, and questions about them."""

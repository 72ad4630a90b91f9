"""Look at the world: each function gives facts, and says what it could not see instead of raising."""

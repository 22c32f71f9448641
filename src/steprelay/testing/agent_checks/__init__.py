"""What the agent suite is made of."""

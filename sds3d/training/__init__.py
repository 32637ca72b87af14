"""A run under way: the session, the loop, and what happens when a step fails or does not fit into memory."""

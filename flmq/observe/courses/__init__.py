"""What the courses of tasks come to: where a round's time went, and who was slowest."""

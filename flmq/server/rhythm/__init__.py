"""When phases and runs end, and what is called as they go: deadlines, early stopping, callbacks."""

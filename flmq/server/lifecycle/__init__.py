"""A run from taking charge of its job to its end, its folder, and its replay."""

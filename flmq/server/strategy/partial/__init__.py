"""Models of which only some tensors are averaged: strategies around others."""

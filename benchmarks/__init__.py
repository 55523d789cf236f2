"""What a round costs, beside Flower and beside bare pika: ``python -m benchmarks``."""

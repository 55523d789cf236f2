"""flmq: federated learning over RabbitMQ, with Flower's programming model."""

__version__ = "0.1.0"

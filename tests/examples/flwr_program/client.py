"""A client as one writes it for flwr; a fixture, moved to flmq by test_flower_program.py."""

import sys

import flwr as fl
import numpy as np


class RegressionClient(fl.client.NumPyClient):
    def __init__(self, partition: int) -> None:
        rng = np.random.default_rng(partition)
        self.partition = partition
        self.x = rng.normal(size=(50, 2))
        self.y = self.x @ np.array([1.0, -2.0])
        self.w = np.zeros(2)

    def get_parameters(self, config):
        return [self.w]

    def set_parameters(self, parameters):
        self.w = parameters[0].copy()

    def fit(self, parameters, config):
        self.set_parameters(parameters)
        for _ in range(3):
            self.w -= config["lr"] * self.x.T @ (self.x @ self.w - self.y) / len(self.y)
        metrics = {"partition": self.partition, "lr": config["lr"]}
        return self.get_parameters(config={}), len(self.y), metrics

    def evaluate(self, parameters, config):
        self.set_parameters(parameters)
        return float(np.mean((self.x @ self.w - self.y) ** 2)), len(self.y), {}


if __name__ == "__main__":
    fl.client.start_client(
        server_address="127.0.0.1:8080",
        client=RegressionClient(int(sys.argv[1])).to_client(),
    )
    print("left in order")

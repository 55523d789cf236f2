"""What is compared, as programs of their own: a server each, and its clients.

They import nothing of flmq but what they measure: Flower's run where only flwr is installed.
"""

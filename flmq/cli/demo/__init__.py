"""The demos: the handwritten digits learned by real processes, at one site or three."""

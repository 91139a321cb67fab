"""Train a network: `recipe` describes the training, and `loop` runs it. Only `recipe` can be imported without torch."""

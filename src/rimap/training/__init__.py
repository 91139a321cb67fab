"""Train a network: `recipe` says what, `loop` does it. Only `recipe` can be read without torch."""

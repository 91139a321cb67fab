"""The networks as torch modules: needed to train, never to map."""

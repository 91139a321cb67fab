"""The recurrent inference machine: `loop` is Eqs. 4–5, `estimator` maps a series with it."""

"""keras_xreid."""

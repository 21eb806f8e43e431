"""Networks that the systems are built on."""

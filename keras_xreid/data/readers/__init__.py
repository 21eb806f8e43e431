"""The readers: a data set's folder, as it was distributed, to lists of `Record`."""

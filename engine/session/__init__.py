"""The life of one connection to the store: what is read for it, and one commit after the other."""

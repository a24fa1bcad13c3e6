"""How fast the road is, how much it keeps in memory and on disk: measured beside a consumer written by hand."""

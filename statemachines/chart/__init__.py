"""Statecharts: states in states, regions side by side, history; by the algorithm of W3C SCXML, appendix D."""

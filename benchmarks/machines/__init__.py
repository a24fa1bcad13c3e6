"""The same machines, in this project and in other libraries."""

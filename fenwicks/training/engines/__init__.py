"""The compiled training programs, one module a framework."""

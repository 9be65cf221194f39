"""The engines, one for each framework: each compiles the steps of an epoch into one program."""

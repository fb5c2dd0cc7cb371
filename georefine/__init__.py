"""The face of georefine: the command line."""

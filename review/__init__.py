"""The web page for inspecting and correcting refined captions, and the log of people's decisions that a rebuild reads.

georefine review DATASET
"""

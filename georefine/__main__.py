"""`python -m georefine` is the command georefine."""

from georefine.cli import main

if __name__ == "__main__":
    main()

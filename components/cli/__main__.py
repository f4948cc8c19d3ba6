"""`python -m components.cli`, where the command `wind` is not on the path."""

from components.cli import main

if __name__ == "__main__":
    main()

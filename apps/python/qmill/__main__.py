"""`python -m qmill`: the command."""

from qmill_command import main

if __name__ == "__main__":
    main()

"""`python -m evbiodist` is the command line."""

from evbiodist.cli import main

if __name__ == "__main__":
    main()

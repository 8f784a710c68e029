"""`python -m ser_jax` and the console script."""

import sys


def run() -> None:
    """Run the command line and exit with its status."""
    from ser_jax.cli.commands import main

    sys.exit(main())


if __name__ == "__main__":
    run()

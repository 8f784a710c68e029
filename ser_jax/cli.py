"""The commands: parse, call the function behind the command, print what it returns."""

import sys

from ser_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    from ser_jax.arguments import parse

    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        if command.name == "prepare":
            from ser_jax.corpora import prepare

            print(prepare(command.config))
        elif command.name == "train":
            from ser_jax.run import train

            print(train(command.config))
        elif command.name == "ablate":
            from ser_jax.ablation import ablate

            print(ablate(command.config))
    except UserError as error:
        print(f"ser-jax: error: {error}", file=sys.stderr)
        return 2
    return 0

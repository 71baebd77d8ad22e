import os
import sys

import click
from itsdangerous import Signer


@click.command()
@click.option("--check", is_flag=True)
def main(check: bool) -> None:
    signed = Signer("key").sign("hello").decode()
    click.echo(f"{Signer('key').unsign(signed).decode()} from {os.getuid()} in {sys.prefix}")


main()

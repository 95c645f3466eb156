"""Tells whoever starts the system how to sign in."""

from console.terminal import messages
from infra.settings import Settings


def print_sign_ins(settings: Settings, made: dict[str, str]) -> None:
    """Where the console is, and the passwords that were made just now: they are shown nowhere else, and never again."""
    messages.print(f"console: {settings.console_url}", highlight=False)
    for name, password in made.items():
        messages.print(f"  sign in as {name:<8} password {password}", highlight=False, markup=False)
    if not made:
        messages.print("  a forgotten password: fraudcase users reset-password NAME", highlight=False)

"""``jaula trust policy``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """List the engine's image rules, or the rule that applies to an image."""
    name = options.arguments[0] if options.arguments else ""
    policy = Client(Settings.host).document("GET", "/jaula/policy/images", (("name", name),))
    if policy["Error"]:
        raise CliError(f"jaula: {policy['Error']}")
    rules = [policy["Decides"]] if name else policy["Rules"]
    if not policy["InForce"] and not options.text("format"):
        print("No image policy is in force: every image is accepted.")
        return 0
    columns: dict[str, list_output.Column] = {
        "Images": ("IMAGES", lambda rule: rule["Scope"]),
        "Rule": ("RULE", lambda rule: rule["Verdict"]),
        "Keys": ("KEYS", lambda rule: ", ".join(_key(key) for key in rule["Keys"])),
        "SignedAs": ("SIGNED AS", lambda rule: rule["SignedAs"]),
    }
    default = "{{.Images}}\t{{.Rule}}\t{{.Keys}}"
    list_output.show(rules, columns, default, options.text("format"))
    return 0


def _key(key: dict[str, Any]) -> str:
    return f"{key['Name']} (sha256:{key['Fingerprint'][:16]}...)"


COMMAND = Command(
    "[OPTIONS] [NAME]",
    "Show the engine's image policy",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
    ),
    max_args=1,
    description=(
        "The rules are the table [images] of the engine's policy.toml. Without one every image "
        "is accepted. With NAME, prints the rule that applies to it."
    ),
    examples=(("Show the rule for an image", "jaula trust policy registry.example.com/web:1.0"),),
    see_also=("trust verify", "verify"),
)

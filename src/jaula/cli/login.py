"""The commands of registries: ``jaula login``, ``logout`` and ``search``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import registry_auth
from jaula.cli.main import Settings
from jaula.cli.output import list_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.images.registry.auth.credentials import Login

UNAUTHORIZED = 401
MAX_PASSWORD = 1 << 16  # bytes


def login(options: Options) -> int:
    """Verify the credentials at the registry, then store them."""
    from jaula.images.registry.auth.credentials import Login

    server = options.arguments[0] if options.arguments else ""
    client = Client(Settings.host)
    explicit = (
        options.is_set("username") or options.is_set("password") or options.on("password-stdin")
    )
    if not explicit:
        stored = registry_auth.stored_login(server)
        if stored.known:
            print("Authenticating with existing credentials...", flush=True)
            try:
                return _verify_and_store(client, server, stored, clear=options.on("plain-text"))
            except EngineError as error:
                if error.code != UNAUTHORIZED:
                    raise
                sys.stderr.write(f"Login did not succeed, error: {error.message}\n")
    login = Login(*_read_credentials(options, server))
    return _verify_and_store(client, server, login, clear=options.on("plain-text"))


def _read_credentials(options: Options, server: str) -> tuple[str, str]:
    """Return user and password from flags, standard input or a prompt.

    :raises CliError: when they are incomplete.
    """
    user, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if options.is_set("password"):
            raise CliError("--password and --password-stdin are mutually exclusive")
        if not user:
            raise CliError("Must provide --username with --password-stdin")
        password = sys.stdin.buffer.read(MAX_PASSWORD).decode().removesuffix("\n")
        return user, password.removesuffix("\r")
    if password:
        sys.stderr.write(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
        )
    if (not user or not password) and not sys.stdin.isatty():
        raise CliError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        user = input("Username: ").strip()
    if not user:
        raise CliError("Error: Non-null Username Required")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not password:
        raise CliError("Error: Password Required")
    return user, password


def _verify_and_store(client: Client, server: str, login: Login, *, clear: bool) -> int:
    """Verify the credentials through the engine and store them if they are accepted.

    :raises CliError: when they cannot be stored.
    :raises EngineError: when the registry rejects them.
    """
    from jaula.errors import JaulaError

    answer = client.document("POST", "/auth", (), registry_auth.auth_config(server, login))
    token = str(answer.get("IdentityToken") or "")
    if token:
        login = login._replace(password="", identity_token=token)
    file = registry_auth.credential_file()
    try:
        if file.store(registry_auth.key(server), login, clear=clear):
            sys.stderr.write(
                f"WARNING! Your password will be stored unencrypted in {file.path}.\n"
                "Configure a credential helper to remove this warning. See\n"
                "https://docs.docker.com/engine/reference/commandline/login/#credentials-store\n\n"
            )
    except JaulaError as error:
        raise CliError(f"Error saving credentials: {error}") from None
    print(answer.get("Status") or "Login Succeeded")
    return 0


LOGIN = Command(
    "[OPTIONS] [SERVER]",
    "Log in to a registry",
    login,
    flags=(
        Flag("password", "p", "string", "Password (other users can see it in the process list)"),
        Flag("password-stdin", "", "bool", "Take the password from stdin"),
        Flag(
            "plain-text",
            "",
            "bool",
            "Store the password in the file, where docker and podman read it as well",
        ),
        Flag("username", "u", "string", "Username"),
    ),
    max_args=1,
    description=(
        "The engine verifies the credentials at SERVER (default: Docker Hub). They are then "
        "stored by the credential helper of config.json (credsStore, credHelpers). Without a "
        "helper they are stored in the kernel's keyring, until the next boot or until they are "
        "unused for three days. If the kernel has no keyring for this user, or with "
        "--plain-text, they are stored in the configuration file itself, which only its owner "
        "can read: $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, or ~/.docker/config.json."
    ),
    examples=(
        ("Log in from a script", "jaula login -u me --password-stdin registry.example.com < pw"),
    ),
    see_also=("logout", "pull", "push"),
)


def logout(options: Options) -> int:
    """Remove the stored credentials of a registry; the engine stores none."""
    from jaula.errors import JaulaError

    key = registry_auth.key(options.arguments[0] if options.arguments else "")
    try:
        removed = registry_auth.credential_file().erase(key)
    except JaulaError as error:
        raise CliError(str(error)) from None
    print(f"Removing login credentials for {key}" if removed else f"Not logged in to {key}")
    return 0


LOGOUT = Command(
    "[SERVER]",
    "Log out from a registry",
    logout,
    max_args=1,
    description="Removes the credentials of SERVER (default: Docker Hub).",
    examples=(("Log out from a registry", "jaula logout registry.example.com"),),
    see_also=("login",),
)


WIDTH = 45  # characters of a description


def search(options: Options) -> int:
    """List the results of the registry, in its order."""
    term = options.arguments[0]
    query = (
        ("term", term),
        ("limit", options.text("limit")),
        ("filters", filters(options.texts("filter"))),
    )
    results = Client(Settings.host).document(
        "GET", "/images/search", query, None, registry_auth.headers(term)
    )
    no_trunc = options.on("no-trunc")
    columns: dict[str, list_output.Column] = {
        "Name": ("NAME", lambda item: item["name"]),
        "Description": ("DESCRIPTION", lambda item: _one_line(item["description"], no_trunc)),
        "StarCount": ("STARS", lambda item: str(item["star_count"])),
        "IsOfficial": ("OFFICIAL", lambda item: "[OK]" if item["is_official"] else ""),
    }
    default = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
    list_output.show(results or (), columns, default, options.text("format"))
    return 0


def _one_line(text: str, no_trunc: bool) -> str:
    line = " ".join(text.split())
    return line if no_trunc else list_output.ellipsis(line, WIDTH)


SEARCH = Command(
    "[OPTIONS] TERM",
    "Search a registry for images",
    search,
    flags=(
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (is-official=true, stars=3)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("limit", "", "int", "Max number of search results (1 to 100)", default="25"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Searches Docker Hub, or the registry that TERM begins with, if it supports search."
    ),
    examples=(("Search official images", "jaula search -f is-official=true nginx"),),
    see_also=("pull",),
)

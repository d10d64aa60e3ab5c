"""Make an API key: `python -m serving.keys <name> [predict|admin]`.

Prints the key, which is not stored anywhere, and the line for the file that CT_SERVING_KEYS_FILE names.
"""

import argparse
import hashlib
import secrets


def new_key(name: str, role: str) -> tuple[str, str]:
    """A new key, and its line for the file."""
    key = secrets.token_urlsafe(32)
    return key, f"{role} {name} {hashlib.sha256(key.encode()).hexdigest()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.keys", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="owner of the key, without spaces")
    parser.add_argument("role", nargs="?", default="predict", choices=["predict", "admin"])
    given = parser.parse_args()
    if not given.name or given.name.split() != [given.name] or "#" in given.name:
        parser.error("a name has no spaces and no #")
    key, line = new_key(given.name, given.role)
    print(f"key   {key}\nline  {line}")


if __name__ == "__main__":
    main()

"""The file of accounts that `--accounts` names, read once when the server starts.

    users:
      ada: {token: hf_..., fullname: Ada Lovelace, orgs: [engines]}
    orgs:
      engines: {default_visibility: private}

Only `token` is required. `default_visibility` is `public` or `private` and holds for new repositories of the
organization, which may have a `fullname` too. Without a section `orgs` the organizations are those that users name.
"""

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

from erpd_hub.errors import ConfigError
from erpd_hub.hub.server.accounts import Accounts, Org, User, token_digest
from erpd_hub.hub.server.paths import is_namespace

MAX_FILE_BYTES = 1 << 20
_TOKEN = re.compile(r"[!-~]{1,512}")
_OTHERS = 0o077


def read_accounts(path: Path) -> Accounts:
    """The accounts of a file.

    Raises:
        ConfigError: it cannot be read or says something else than described; tokens are never part of the message.
    """
    top = _mapping(_parse(path), str(path), allowed=("users", "orgs"))
    org_rows = _mapping(top.get("orgs"), f"{path}: orgs")
    user_rows = _mapping(top.get("users"), f"{path}: users")
    if not user_rows:
        raise ConfigError(f"{path}: users: expected at least one user, got none; add NAME: {{token: ...}}")
    _check_names(path, [*(("orgs", name) for name in org_rows), *(("users", name) for name in user_rows)])
    orgs = {name.lower(): _org(name, row, f"{path}: orgs.{name}") for name, row in org_rows.items()}
    users: dict[bytes, User] = {}
    for name, row in user_rows.items():
        digest, user = _user(name, row, f"{path}: users.{name}")
        if digest in users:
            raise ConfigError(f"{path}: users.{name}.token: {users[digest].name} has the same; give each their own")
        if unknown := [org for org in user.orgs if orgs and org.lower() not in orgs]:
            where = f"{path}: users.{name}.orgs"
            raise ConfigError(f"{where}: expected organizations of this file, got {unknown[0]}; add it below orgs")
        users[digest] = user
    named = {org.lower(): Org(org, org) for user in users.values() for org in user.orgs}
    return Accounts(users, {**named, **orgs})


def _check_names(path: Path, found: list[tuple[str, str]]) -> None:
    taken: set[str] = set()
    for section, name in found:
        if not is_namespace(name):
            rule = "expected letters, digits, -, _ and . and no reserved word"
            raise ConfigError(f"{path}: {section}: {rule}, got {name!r}; rename it")
        if name.lower() in taken:
            raise ConfigError(f"{path}: {section}.{name}: another user or organization has this name; rename one")
        taken.add(name.lower())


def readable_by_others(path: Path) -> str | None:
    """A warning when the file's mode lets others at its tokens."""
    mode = path.stat().st_mode
    return f"{path}: others can read the tokens in it; run: chmod 600 {path}" if mode & _OTHERS else None


def _parse(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable file of accounts: {error.strerror}; check --accounts") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: expected at most {MAX_FILE_BYTES} bytes; check --accounts")
    try:
        return yaml.load(content, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}: line {line}: {_reason(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{path}: expected YAML in UTF-8; correct it") from None


def _reason(error: yaml.MarkedYAMLError) -> str:
    """What is wrong; only of our own finding the details, as YAML's may quote a token."""
    if isinstance(error, _WrittenTwice):
        return f"expected each name once, got {error.problem} twice; remove or rename one"
    return "expected YAML; correct it, and put tokens in quotes"


class _WrittenTwice(yaml.constructor.ConstructorError):
    """A key that its mapping has already."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, of which the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [key for key, _ in node.value]
        for index, key in enumerate(keys):
            if isinstance(key, yaml.ScalarNode) and key.value in [other.value for other in keys[:index]]:
                raise _WrittenTwice(None, None, key.value, key.start_mark)
        return super().construct_mapping(node, deep)


def _mapping(value: object, where: str, allowed: tuple[str, ...] | None = None) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping, got {type(value).__name__}; see `erpd-hub hub serve --help`")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: expected names, got {key!r}; put it in quotes")
        if allowed is not None and key not in allowed:
            raise ConfigError(f"{where}: {key}: expected one of {', '.join(allowed)}; remove or correct it")
    return value


def _org(name: str, row: object, where: str) -> Org:
    fields = _mapping(row, where, ("default_visibility", "fullname"))
    visibility = fields.get("default_visibility", "public")
    if visibility not in ("public", "private"):
        raise ConfigError(f"{where}.default_visibility: expected public or private, got {visibility!r}; correct it")
    return Org(name, _fullname(fields, name, where), visibility == "private")


def _fullname(fields: dict[str, object], name: str, where: str) -> str:
    fullname = fields.get("fullname", name)
    if not isinstance(fullname, str):
        raise ConfigError(f"{where}.fullname: expected text, got {type(fullname).__name__}; put it in quotes")
    return fullname


def _user(name: str, row: object, where: str) -> tuple[bytes, User]:
    fields = _mapping(row, where, ("token", "fullname", "orgs"))
    token = fields.get("token")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise ConfigError(f"{where}.token: expected text of 1 to 512 visible ASCII characters; put it in quotes")
    orgs = fields.get("orgs") or []
    if not isinstance(orgs, list) or not all(isinstance(org, str) and is_namespace(org) for org in orgs):
        raise ConfigError(f"{where}.orgs: expected a list of names; write [first, second]")
    return token_digest(token), User(name, _fullname(fields, name, where), tuple(orgs))

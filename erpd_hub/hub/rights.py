"""What an endpoint says of its token and its repositories, asked before the first byte is sent there."""

from typing import Any

from erpd_hub.errors import ConfigError, HubError
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.hub.retry import NotOnHub


def check_may_write(hub: Hub, namespace: str) -> None:
    """Refuse a namespace that the endpoint's token cannot write to, as far as the endpoint says so.

    Raises:
        HubError: it does not know the token, or there is none.
        ConfigError: the token only reads, or the namespace is none of its user's.
    """
    user = whoami(hub)
    orgs = {str(org.get("name")): org.get("roleInOrg") for org in user.get("orgs") or []}
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    name = str(user.get("name"))
    mine = namespace.lower() in {one.lower() for one in (name, *orgs)}
    if not mine and not _is_open(hub):
        known = f"{name} or an organisation of theirs ({', '.join(orgs) or 'there is none'})"
        raise ConfigError(f"--namespace: expected {known} on {hub.identity}, got {namespace!r}")
    if mine and "read" in (role, orgs.get(namespace)):
        raise ConfigError(f"{hub.identity}: expected a token that may write under {namespace}, got one that only reads")


def repository(hub: Hub, repo_type: RepoType, repo_id: str) -> Any | None:
    """What the endpoint says of a repository: `sha` of main, `private`, `gated`; None where there is none."""
    try:
        return hub.ask(lambda: hub.api.repo_info(repo_id, repo_type=repo_type))
    except NotOnHub:
        return None


def _is_open(hub: Hub) -> bool:
    """Whether it takes everybody for its one user, who owns every namespace."""
    try:
        whoami(hub, anonymous=True)
    except HubError:
        return False
    return True


def whoami(hub: Hub, *, anonymous: bool = False) -> dict[str, Any]:
    """As `HfApi.whoami`, which refuses to ask without a token; a Hub without accounts needs none.

    Raises:
        HubError: the endpoint does not know the token, wants one, or is out of reach.
    """
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    token = False if anonymous else hub.api.token

    def request() -> dict[str, Any]:
        response = get_session().get(f"{hub.api.endpoint}/api/whoami-v2", headers=build_hf_headers(token=token))
        hf_raise_for_status(response)
        found: dict[str, Any] = response.json()
        return found

    return hub.ask(request)

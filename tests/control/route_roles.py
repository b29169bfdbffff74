"""Which role each route needs; None for whoever can reach the node. A route without an entry fails a test."""

from blocker.store.token import Role

LIST = "/v1/lists/{name}"
ROUTE_ROLES: dict[tuple[str, str], Role | None] = {
    ("GET", "/v1/check"): None,
    ("POST", "/v1/check"): None,
    ("GET", "/v1/hosts/{host}"): None,
    ("GET", "/v1/lists"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
    ("GET", "/blocked"): None,
    ("GET", "/docs"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/v1/whoami"): Role.VIEWER,
    ("GET", "/v1/proposals"): Role.VIEWER,
    ("GET", f"{LIST}/log"): Role.VIEWER,
    ("GET", f"{LIST}/draft"): Role.MAINTAINER,
    ("PUT", f"{LIST}/draft"): Role.MAINTAINER,
    ("PATCH", f"{LIST}/draft"): Role.MAINTAINER,
    ("DELETE", f"{LIST}/draft"): Role.MAINTAINER,
    ("POST", f"{LIST}/publish"): Role.MAINTAINER,
    ("POST", f"{LIST}/rollback"): Role.MAINTAINER,
    ("POST", f"{LIST}/approve"): Role.APPROVER,
    ("POST", f"{LIST}/reject"): Role.APPROVER,
    ("GET", "/v1/audit"): Role.OPERATOR,
    ("GET", "/v1/explain"): Role.OPERATOR,
    ("POST", "/v1/explain"): Role.OPERATOR,
}
# The console's routes, which are in no OpenAPI document; None for whoever can reach the node.
CONSOLE_ROLES: dict[tuple[str, str], Role | None] = {
    ("GET", "/"): Role.VIEWER,
    ("GET", "/console/hits"): Role.VIEWER,
    ("GET", "/console/changes"): Role.VIEWER,
    ("GET", "/console/proposals"): Role.VIEWER,
    ("POST", "/console/proposals/{name}/approve"): Role.APPROVER,
    ("POST", "/console/proposals/{name}/reject"): Role.APPROVER,
    ("GET", "/console/explain"): Role.OPERATOR,
    ("POST", "/console/explain"): Role.OPERATOR,
    ("GET", "/console/login"): None,
    ("POST", "/console/login"): None,
    ("POST", "/console/logout"): None,
}
